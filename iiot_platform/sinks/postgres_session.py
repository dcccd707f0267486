"""One connection to PostgreSQL, and the time that a statement may take.

libpq waits for the answer of a server for ever; here the connection is cut when the time is up,
whatever the server or the network do.
"""

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg2
import pyarrow as pa
import sqlalchemy as sa
from psycopg2 import sql

_READ_BYTES: Final = 1 << 20


class Session:
    """A connection in a transaction; safe for one thread.

    Args:
        url: where, and how to log in; its `connect_timeout` is for the connecting.
        timeout_s: for one statement.

    Raises:
        psycopg2.Error: the server can not be reached or does not let us in.
    """

    def __init__(self, url: sa.URL, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.is_overdue = False
        """True where the connection was cut because a statement took too long."""
        positional, named = url.get_dialect()().create_connect_args(url)
        self._connection: Any = psycopg2.connect(*positional, **named, client_encoding="UTF8")
        self._cursor: Any = self._connection.cursor()

    def execute(
        self, statement: sql.Composable | str, values: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        """The rows of a statement, empty where it has none.

        Raises:
            psycopg2.Error: the server refuses it, or is away.
        """
        with self._in_time():
            self._cursor.execute(statement, values or None)
            return self._cursor.fetchall() if self._cursor.description is not None else []

    def copy(self, statement: sql.Composable, data: pa.Buffer) -> None:
        """Hands data to a `COPY … FROM STDIN`.

        Raises:
            psycopg2.Error: the server refuses it, or is away.
        """
        with self._in_time():
            self._cursor.copy_expert(statement, pa.BufferReader(data), _READ_BYTES)

    def commit(self) -> None:
        """Make everything since the last commit stand.

        Raises:
            psycopg2.Error: it does not stand, or the server is away and nobody knows.
        """
        with self._in_time():
            self._connection.commit()

    @property
    def is_open(self) -> bool:
        """False once the server or we have closed the connection."""
        return not self._connection.closed

    def close(self) -> None:
        """Leave; what was not committed is gone."""
        self._connection.close()

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        with socket.socket(fileno=os.dup(self._connection.fileno())) as wire:
            timer = threading.Timer(self._timeout_s, self._cut, (wire,))
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
                timer.join()

    def _cut(self, wire: socket.socket) -> None:
        self.is_overdue = True
        with suppress(OSError):  # the server was quicker to close it
            wire.shutdown(socket.SHUT_RDWR)
