"""Where the ledger is kept, and what "alone among the writers" means there.

Every writer of the ledger goes through `alone`, so that what a transaction has compared still
stands when it writes: on SQLite by the file's one write lock, on PostgreSQL by locks on names that
are held to the end of the transaction. At READ COMMITTED every statement behind such a lock sees
all that earlier holders have committed; a row that is not there yet needs no lock of its own.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol

import sqlalchemy as sa
from pydantic import SecretStr

from iiot_platform.config.database import connect, connection_url, lock, make_schema, shown
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.errors import OtherLayoutError

SCHEMA: Final = "iiot"
_BUSY_TIMEOUT_S: Final = 30.0
_READING: Final = "iiot_reading"
_OPTIONS: Final = (
    f"lock_timeout={int(_BUSY_TIMEOUT_S * 1_000)}",
    # a process that was stopped within a transaction holds up its line no longer than this
    "idle_in_transaction_session_timeout=300000",
)
_EVERYTHING: Final = "iiot ledger"


class LedgerDatabase(Protocol):
    """A database that a ledger can be kept in.

    Attributes:
        engine: its connections.
        name: what it is called in messages; no secret.
    """

    engine: sa.Engine
    name: str

    def make(self) -> None:
        """Make the tables where there are none; safe beside others that do the same.

        Raises:
            OtherLayoutError: there are tables, but those of another version.
        """

    def alone(self, of: str | None) -> AbstractContextManager[sa.Connection]:
        """A transaction, alone among the writers of a name, or of everything."""

    def snapshot(self) -> AbstractContextManager[sa.Connection]:
        """A view of one moment, that holds nobody up."""


class SqliteLedger:
    """A file of its own, made with its folder; any number of processes on one machine."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.name = f"'{path}'"
        self.engine = sa.create_engine(
            f"sqlite:///{path.absolute()}", connect_args={"timeout": _BUSY_TIMEOUT_S}
        )
        sa.event.listen(self.engine, "connect", _prepare)
        sa.event.listen(self.engine, "begin", _begin)

    def make(self) -> None:
        """Make the tables where there are none."""
        with self.snapshot() as connection:
            if _is_made(connection, self.name):
                return
        with self.engine.begin() as connection:
            _make(connection, self.name)

    @contextmanager
    def alone(self, of: str | None) -> Iterator[sa.Connection]:
        """A transaction, alone among all writers, whatever it writes."""
        del of  # the file has one write lock
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A view of one moment."""
        with self.engine.connect().execution_options(**{_READING: True}) as connection:
            yield connection


class PostgresLedger:
    """A schema of a PostgreSQL database; any number of processes on any machines."""

    def __init__(self, database: SecretStr) -> None:
        self.name = f"in schema '{SCHEMA}' of {shown(database)}"
        self.engine = connect(connection_url(database, SCHEMA, *_OPTIONS), pool_size=2)

    def make(self) -> None:
        """Make the schema and its tables where there are none."""
        with self.snapshot() as connection:
            if _is_made(connection, self.name, SCHEMA):
                return
        with self.engine.begin() as connection:
            make_schema(connection, SCHEMA)
            _make(connection, self.name, SCHEMA)

    @contextmanager
    def alone(self, of: str | None) -> Iterator[sa.Connection]:
        """A transaction, alone among the writers of a name; of everything without one."""
        with self.engine.begin() as connection:
            lock(connection, _EVERYTHING, shared=of is not None)
            if of is not None:
                lock(connection, f"{_EVERYTHING}: {of}")
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A view of one moment."""
        with self.engine.connect().execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        ) as connection:
            yield connection


def _is_made(connection: sa.Connection, name: str, schema: str | None = None) -> bool:
    """False where there is no table yet.

    Raises:
        OtherLayoutError: there are tables, but those of another version.
    """
    tables = sa.inspect(connection).get_table_names(schema)
    if not tables:
        return False
    if db.LAYOUT.name in tables:
        found = connection.execute(sa.select(db.LAYOUT.c.digest)).scalars().all()
        if found == [db.DIGEST]:
            return True
    raise OtherLayoutError(name)


def _make(connection: sa.Connection, name: str, schema: str | None = None) -> None:
    if not _is_made(connection, name, schema):  # another may have made them meanwhile
        db.METADATA.create_all(connection)
        connection.execute(sa.insert(db.LAYOUT).values(digest=db.DIGEST))


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begin(connection: sa.Connection) -> None:
    reading = connection.get_execution_options().get(_READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
