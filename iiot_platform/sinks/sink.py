"""What every database behind the tables can do, whichever it is."""

from types import TracebackType
from typing import NamedTuple, Protocol, Self

import pyarrow as pa

from iiot_platform.core import schema


class Written(NamedTuple):
    """Points that the server has, and rows that had nothing to store."""

    points: int
    dropped: int


class Server(NamedTuple):
    """What a server says of itself: its product and version, and whether it can delete rows."""

    product: str
    version: str
    can_delete: bool


class Sink(Protocol):
    """What a drain needs of a database."""

    @property
    def request_rows(self) -> int:
        """How many rows of a table are best brought together."""

    def write(self, table: schema.Table, rows: pa.Table) -> Written:
        """Write rows, replacing those with the same time and tags.

        Raises:
            RefusedRowsError: the server refuses some of the rows; all others are stored.
            SinkError: the server is away or does not let us in; any part may be stored.
        """

    def rewrite(
        self, table: schema.Table, line: str, start_ms: int, end_ms: int, rows: pa.Table
    ) -> Written:
        """Make rows all that a line has in a table with times in [start_ms, end_ms).

        Raises:
            RefusedRowsError: the server refuses some of the rows; all others are stored.
            SinkError: the server is away or does not let us in; any part may be done.
        """


class OpenSink(Sink, Protocol):
    """A sink with its connections, for as long as a `with` block lasts."""

    def __enter__(self) -> Self:
        """Itself; nothing is connected before it is needed."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""

    def server(self) -> Server:
        """What the server says of itself.

        Raises:
            SinkError: the server does not answer.
        """
