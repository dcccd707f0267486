"""Hours whose raw records are gone, wholly or in part, from what was decoded of them before.

Retention deletes raw records of hours that were computed whole; a damaged file takes others.
What they had decoded to stands in the tables of the hour, `readings` before all, and takes their
place where the hour is computed again. Decoding can no longer change for them: other limits of
lateness or another topic shape do nothing to what is kept, and what was set aside stays so.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iiot_platform.core import schema
from iiot_platform.core.capture_log import GAP_TOPIC
from iiot_platform.core.errors import StorageError
from iiot_platform.engine.decode import Quarantined
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.log_reader import LogReader, Range, without
from iiot_platform.engine.payloads import Gap
from iiot_platform.engine.readings import Readings
from iiot_platform.engine.table_store import TableStore

_TRIES: Final = 3
_T = TypeVar("_T")


class Kept(NamedTuple):
    """What stands in the tables of an hour from records that are gone.

    Attributes:
        readings: of the hour, in the order that they are stored in.
        quarantined: what was set aside, gaps included.
        below: raw records before this offset are gone, those of the hour among them; 0: none is.
    """

    readings: Readings
    quarantined: tuple[Quarantined, ...]
    below: int


NOTHING_KEPT: Final = Kept(Readings.empty(), (), 0)


class KeptReadings:
    """Looks up what is kept of a line's hours."""

    def __init__(self, log: LogReader, ledger: Ledger, store: TableStore, line: str) -> None:
        self._log = log
        self._ledger = ledger
        self._store = store
        self._line = line

    def split(self, hour: int, ranges: Sequence[Range]) -> tuple[list[Range], Kept]:
        """The ranges of an hour that the log still has, and what is kept of the others.

        Raises:
            StorageError: a table file of the hour can not be read.
        """
        gone = self._log.gone(self._line)
        present = without(ranges, gone)
        missing = without(ranges, present)
        if not missing:
            return present, NOTHING_KEPT
        return present, Kept(
            Readings.from_table(self._rows(schema.READINGS, hour, missing)),
            (
                *_quarantined(self._rows(schema.QUARANTINE, hour, missing)),
                *_gaps(self._rows(schema.GAPS, hour, missing)),
            ),
            missing[-1][1],
        )

    def _rows(self, table: schema.Table, hour: int, ranges: Iterable[Range]) -> pa.Table:
        files = self._ledger.files(self._line, table.name, hour)
        rows = self._store.read(table, [file.path for file in files])
        offsets = rows.column("offset").to_numpy()
        inside = np.zeros(len(rows), np.bool_)
        for lo, hi in ranges:
            inside |= (offsets >= lo) & (offsets < hi)
        return rows.filter(pa.array(inside))


def while_it_lasts(read: Callable[[], _T], log: LogReader, line: str) -> _T:
    """Reads again where retention has taken what was being read.

    Raises:
        StorageError: it can not be read, and not because of retention.
    """
    for _ in range(_TRIES):
        before = log.gone(line)
        try:
            return read()
        except StorageError:
            if log.gone(line) == before:
                raise
    return read()


def _quarantined(rows: pa.Table) -> list[Quarantined]:
    received = pc.cast(rows.column("ts"), pa.int64()).to_pylist()
    return [
        # under no settings does it belong to another hour than that of its receipt any more
        Quarantined(
            row["offset"], row["topic"], row["payload"], at, at, row["reason"], row["detail"]
        )
        for at, row in zip(received, rows.to_pylist(), strict=True)
    ]


def _gaps(rows: pa.Table) -> list[Quarantined]:
    times = [pc.cast(rows.column(name), pa.int64()) for name in ("ts", "begin_ts", "end_ts")]
    return [
        Quarantined(
            row["offset"],
            f"{GAP_TOPIC}{row['source']}",
            msgspec.json.encode(
                Gap(begin, end, row["reason"], filled=row["filled"], complete=row["complete"])
            ),
            at,
            at,
            schema.GAP,
            "",
        )
        for row, at, begin, end in zip(
            rows.to_pylist(), *(column.to_pylist() for column in times), strict=True
        )
    ]
