"""What a sink can not take however often it is tried; a server that is away is none of these."""

from iiot_platform.core.errors import SinkError

_SHOWN_CHARS = 400


class RefusedError(SinkError):
    """Doing it again would not help."""


class RefusedRowsError(RefusedError):
    """The server refuses rows for what they say.

    Attributes:
        table: table that the rows belong to.
        row: place of the first refused row in what was written.
        line: that row as it was sent.
        reason: what the server says of it.
        points: refused points; at least these, where the search was cut short.
    """

    def __init__(
        self,
        where: str,
        table: str,
        *,
        row: int,
        line: str,
        reason: str,
        points: int,
        of: int,
        advice: str,
    ) -> None:
        self.table = table
        self.row = row
        self.line = line
        self.reason = reason
        self.points = points
        shown = line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}…"
        super().__init__(
            f"{where} refuses {points} of {of} points of table '{table}': {reason}; "
            f"first is row {row}: {shown} "
            f"(the other points are stored; {advice})"
        )
