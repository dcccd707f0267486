"""The quarantine: what was set aside, and the way back once the plant file is repaired."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from iiot_platform.core import schema
from iiot_platform.core.clock import hour_of
from iiot_platform.core.errors import StorageError
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.backfill import Recomputed, backfill
from iiot_platform.engine.decode import decode
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.lifecycle_ledger import LedgerHistory
from iiot_platform.engine.log_reader import without
from iiot_platform.engine.table_store import TableStore

_READ_TOGETHER: Final = 20_000
"""Offsets that are near enough to be read at once."""


class QuarantinedRow(NamedTuple):
    """A message that is set aside; `received` in Unix ms, `hour` that of its receive time."""

    line: str
    offset: int
    received: int
    topic: str
    payload: bytes
    reason: str
    detail: str
    run_id: str
    config_version: str

    @property
    def hour(self) -> int:
        """The hour whose table holds it."""
        return hour_of(self.received)


class Quarantine:
    """Reads a line's quarantine as it stands, hour by hour."""

    def __init__(self, ledger: Ledger, store: TableStore, line: str) -> None:
        self._ledger = ledger
        self._store = store
        self._line = line

    def rows(
        self, *, reason: str | None = None, start_ms: int | None = None, end_ms: int | None = None
    ) -> Iterator[QuarantinedRow]:
        """The rows received in [start_ms, end_ms), in order of time.

        Args:
            reason: those set aside for this reason alone.
            start_ms: first receive time; None: from the first on.
            end_ms: time behind the last one; None: up to the last.
        """
        for hour in self._ledger.hours(self._line):
            if start_ms is not None and hour < hour_of(start_ms):
                continue
            if end_ms is not None and hour > hour_of(end_ms - 1):
                continue
            yield from (
                row
                for row in self._hour(hour)
                if (reason is None or row.reason == reason)
                and (start_ms is None or row.received >= start_ms)
                and (end_ms is None or row.received < end_ms)
            )

    def at(self, offset: int) -> QuarantinedRow | None:
        """The row of one offset; None where it is not set aside."""
        ranges = sa.select(db.RANGES.c.hour).where(
            db.RANGES.c.line == self._line, db.RANGES.c.lo <= offset, db.RANGES.c.hi > offset
        )
        with self._ledger.reading() as connection:
            hours = list(connection.execute(ranges).scalars())
        found = (row for hour in hours for row in self._hour(hour) if row.offset == offset)
        return next(found, None)

    def _hour(self, hour: int) -> list[QuarantinedRow]:
        files = self._ledger.files(self._line, schema.QUARANTINE.name, hour)
        if not files:
            return []
        rows = self._store.read(schema.QUARANTINE, [file.path for file in files])
        rows = rows.sort_by("offset")
        columns = rows.set_column(
            rows.schema.get_field_index("ts"), "ts", pc.cast(rows.column("ts"), "int64")
        )
        return [
            QuarantinedRow(
                self._line,
                row["offset"],
                row["ts"],
                row["topic"],
                row["payload"],
                row["reason"],
                row["detail"],
                row["run_id"],
                row["config_version"],
            )
            for row in columns.to_pylist()
        ]


@dataclass
class RetryReport:
    """What a retry did for one line.

    Attributes:
        line: name of the line.
        tried: messages that stood in the quarantine.
        decoded: those that have become readings.
        stays: those that stay, by the reason under the current settings.
        gone: those whose raw record is no longer in the log; they stay too.
        hours: the hours that were computed again because of what decodes.
        computed: what became of these, and of those that follow from them.
        left: hours that are dirty in the end.
    """

    line: str
    tried: int = 0
    decoded: int = 0
    stays: Counter[str] = field(default_factory=Counter)
    gone: int = 0
    hours: list[int] = field(default_factory=list)
    computed: list[Recomputed] = field(default_factory=list)
    left: int = 0

    @property
    def following(self) -> int:
        """How many hours were computed that only went on from another state."""
        return sum(found.follows for found in self.computed)


def retry(
    engine: Engine,
    line: str,
    *,
    run_id: str,
    reason: str | None = None,
    on_hour: Callable[[RetryReport], None] = lambda _: None,
) -> RetryReport:
    """Decodes what is set aside under the current settings, and computes the affected hours.

    These are the hours of the receive times of what decodes now, and the hours of its event
    times. They get the current settings; where nothing decodes, nothing is computed. Hours behind
    them that went on from another state follow, under their own settings.

    Args:
        engine: has the plant whose settings are the current ones.
        line: name of the line.
        run_id: goes on every row that is computed.
        reason: only what was set aside for this reason is tried.
        on_hour: told after every hour how far it is.

    Raises:
        StorageError: tables or ledger can not be read or written.
    """
    report = RetryReport(line)
    hours: set[int] = set()
    quarantine = Quarantine(engine.ledger, engine.store, line)
    for received_hour, rows in groupby(quarantine.rows(reason=reason), lambda row: row.hour):
        stood: dict[int, set[str]] = {}
        for row in rows:
            stood.setdefault(row.offset, set()).add(row.reason)
        report.tried += len(stood)
        homes = _decoded(engine, line, stood, report)
        if homes:
            hours |= {received_hour, *homes}
            for hour, found in homes.items():
                add_ranges(engine.ledger, line, hour, _runs(sorted(found)))
    report.hours = sorted(hours)
    for computed in backfill(engine, line, report.hours, run_id=run_id):
        report.computed.append(computed)
        on_hour(report)
    report.left = len(engine.dirty_hours(line))
    return report


def _decoded(
    engine: Engine, line: str, stood: Mapping[int, set[str]], report: RetryReport
) -> dict[int, set[int]]:
    """The offsets that decode now, by the hour of their event time.

    A Sparkplug message may have been read in part; it decodes now where less of it is set aside.
    """
    settings = engine.settings_for(line, 0, keep=False)
    homes: dict[int, set[int]] = {}
    history = LedgerHistory(engine.ledger, line)
    for records in _raw(engine, line, sorted(stood), report):
        decoded = decode(records, settings, history)
        left: dict[int, set[str]] = {}
        for entry in decoded.quarantine:
            if entry.reason != schema.GAP:
                left.setdefault(entry.offset, set()).add(entry.reason)
        readings = decoded.readings
        found: set[int] = set()
        for ts, offset in zip(readings.ts.tolist(), readings.offset.tolist(), strict=True):
            if stood[offset] - left.get(offset, set()):
                homes.setdefault(hour_of(ts), set()).add(offset)
                found.add(offset)
        report.decoded += len(found)
        report.stays += Counter(
            reason for offset, reasons in left.items() if offset not in found for reason in reasons
        )
    return homes


def _raw(engine: Engine, line: str, offsets: list[int], report: RetryReport) -> Iterator[pa.Table]:
    """The raw records of rising offsets; neighbours are read together."""
    for _, near in groupby(offsets, lambda offset: offset // _READ_TOGETHER):
        chosen = list(near)
        try:
            records = engine.log.read(line, [(chosen[0], chosen[-1] + 1)])
        except StorageError:
            yield from _rest(engine, line, chosen, report)
            continue
        yield records.filter(pc.is_in(records.column("offset"), value_set=pa.array(chosen)))


def _rest(engine: Engine, line: str, offsets: list[int], report: RetryReport) -> Iterator[pa.Table]:
    """What is still there of rising offsets, segment by segment."""
    left = len(offsets)
    for lo, hi in _runs(offsets):
        for segment in engine.log.segments(line, lo, hi):
            start, stop = max(lo, segment.lo), min(hi, segment.hi)
            try:
                yield engine.log.read(line, [(start, stop)])
            except StorageError:
                continue
            left -= stop - start
    report.gone += left


def _runs(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Rising offsets as half-open ranges."""
    runs: list[tuple[int, int]] = []
    for offset in offsets:
        if runs and runs[-1][1] == offset:
            runs[-1] = (runs[-1][0], offset + 1)
        else:
            runs.append((offset, offset + 1))
    return runs


def add_ranges(
    ledger: Ledger, line: str, hour: int, ranges: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Makes an hour's index cover these offset ranges too; returns what it did not cover yet."""
    added: list[tuple[int, int]] = []
    with ledger.transaction(line) as connection:
        query = sa.select(db.RANGES.c.lo, db.RANGES.c.hi).where(
            db.RANGES.c.line == line, db.RANGES.c.hour == hour
        )
        known = sorted((lo, hi) for lo, hi in connection.execute(query))
        for one in ranges:
            added += without([one], known)
        for lo, hi in added:
            connection.execute(sa.insert(db.RANGES).values(line=line, hour=hour, lo=lo, hi=hi))
    return added
