"""The engine: live batches and whole hours, from the log to a commit. Knows no Dagster."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, Literal

import numpy as np

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_S, hour_of, hour_start_ms, now_ms
from iiot_platform.core.names import SeriesKey
from iiot_platform.core.paths import Home
from iiot_platform.engine.activity import NO_SERIES
from iiot_platform.engine.code_version import code_version
from iiot_platform.engine.commit import Commit, DirtyMark, HourChange, RerunKind, StoredState
from iiot_platform.engine.decode import Decoded, Quarantined, decode
from iiot_platform.engine.errors import HourOpenError
from iiot_platform.engine.hour import HourBuilder, WholeHour
from iiot_platform.engine.kept_readings import KeptReadings, while_it_lasts
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.log_reader import LogReader
from iiot_platform.engine.offset_spans import offset_spans
from iiot_platform.engine.partition import hour_of_each, split_hours
from iiot_platform.engine.partitions import checkpoints, partitions
from iiot_platform.engine.readings import Readings, concat
from iiot_platform.engine.report import BatchReport, HourReport, SettleReport
from iiot_platform.engine.settle import OTHER_SETTINGS, recompute
from iiot_platform.engine.table_store import TableStore

_NOTHING_KNOWN: Final[Mapping[SeriesKey, StoredState]] = {}


class Engine:
    """Computes the tables of a plant's lines below one home.

    Args:
        home: where the log, the tables and the ledger are.
        plant: the plant file; its settings are the current ones.
        sinks: True where a database wants to be told of every change.
        clock: Unix milliseconds; tells which hours have closed.
    """

    def __init__(
        self,
        home: Home,
        plant: Plant,
        *,
        sinks: bool = False,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self.log = LogReader(home)
        self.ledger = Ledger.of(home, sinks=sinks)
        self.store = TableStore(home)
        self._plant = plant
        self._clock = clock

    @property
    def lines(self) -> list[str]:
        """The lines of the plant."""
        return [line.name for line in self._plant.lines]

    def close(self) -> None:
        """Closes the ledger."""
        self.ledger.close()

    def run_batch(
        self, line: str, *, run_id: str, row_cap: int | None = None
    ) -> BatchReport | None:
        """Takes what is sealed behind the watermark into the tables; None where nothing is.

        Raises:
            CommitLostError: another run has taken some of it meanwhile; nothing was written.
            StorageError: the log, the tables or the ledger can not be read or written.
        """
        started = time.perf_counter()
        lo = self.ledger.watermark(line)
        hi = self.log.batch_end(line, lo, row_cap or self._plant.batches.row_cap)
        if hi <= lo:
            return None
        current = self._plant.line_settings(line)
        decoded = decode(self.log.read(line, self.log.present(line, [(lo, hi)])), current)
        parts = _by_hour(decoded)
        batch = _Batch(self, line, current, (lo, hi), run_id, [hour for hour, _, _ in parts])
        for hour, readings, quarantined in parts:
            batch.add(hour, readings, quarantined)
            batch.claim(hour_of(entry.claimed) for entry in quarantined)
        seconds = time.perf_counter() - started
        versions = self.ledger.commit(batch.commit(decoded, seconds))
        newest = int(decoded.readings.received.max()) if len(decoded.readings) else self._clock()
        return BatchReport(
            line=line,
            lo=lo,
            hi=hi,
            hours=tuple(
                self.report(line, change, versions[change.hour], counts)
                for change, counts in zip(batch.changes, batch.hour_counts, strict=True)
            ),
            quarantined=dict(decoded.reasons),
            duplicates=batch.counts["duplicates"],
            late_rows=batch.counts["late_rows"],
            seconds=time.perf_counter() - started,
            lag_rows=self.log.head(line) - hi,
            lag_s=max(0, self._clock() - newest) / MS_PER_S,
        )

    def rerun(
        self,
        line: str,
        hour: int,
        *,
        run_id: str,
        settings: Literal["keep", "current"] = "keep",
        kind: RerunKind = "rerun",
    ) -> HourReport:
        """Computes an hour whole from the log: `recompute` without the comparison's result."""
        return self.recompute(line, hour, run_id=run_id, settings=settings, kind=kind).report

    def recompute(
        self,
        line: str,
        hour: int,
        *,
        run_id: str,
        settings: Literal["keep", "current"] = "keep",
        kind: RerunKind = "rerun",
    ) -> SettleReport:
        """Computes an hour whole from the log and compares it with what stood.

        An hour that has closed is settled by it.

        Args:
            line: name of the line.
            hour: the hour.
            run_id: goes on every row that is written.
            settings: `keep` those assigned to the hour, or assign the `current` ones.
            kind: why; goes into the lineage.

        Raises:
            CommitLostError: a live batch has changed the hour meanwhile; nothing was written.
            StorageError: the log, the tables or the ledger can not be read or written.
        """
        return recompute(self, line, hour, run_id=run_id, settings=settings, kind=kind)

    def settle(
        self,
        line: str,
        hour: int,
        *,
        run_id: str,
        settings: Literal["keep", "current"] = "keep",
        kind: RerunKind = "settle",
    ) -> SettleReport:
        """As `recompute`, of an hour that has closed.

        Raises:
            HourOpenError: the hour has not ended, or its grace is not over.
            CommitLostError: a live batch has changed the hour meanwhile; nothing was written.
            StorageError: the log, the tables or the ledger can not be read or written.
        """
        if self.is_open(hour):
            raise HourOpenError(line, hour)
        return self.recompute(line, hour, run_id=run_id, settings=settings, kind=kind)

    def unsettled_hours(self, line: str) -> list[int]:
        """The hours that have closed and were not computed whole since, oldest first."""
        return [
            found.hour
            for found in partitions(self.ledger, line)
            if not (found.settled or self.is_open(found.hour))
        ]

    def closed_hours(self, line: str) -> list[int]:
        """The hours that have closed, oldest first."""
        return [
            found.hour for found in partitions(self.ledger, line) if not self.is_open(found.hour)
        ]

    def outdated_hours(self, line: str) -> list[int]:
        """The hours that are computed under other settings than the current ones, oldest first."""
        current = self._plant.line_settings(line).version
        return [
            found.hour
            for found in partitions(self.ledger, line)
            if found.settings_version != current
        ]

    def dirty_hours(self, line: str) -> list[int]:
        """The hours that must be computed again, oldest first."""
        return sorted(self.ledger.dirty(line))

    def settings_for(self, line: str, hour: int, *, keep: bool) -> LineSettings:
        """The settings assigned to an hour, or the current ones."""
        assigned = self.ledger.assignment(line, hour) if keep else None
        return assigned or self._plant.line_settings(line)

    def is_open(self, hour: int) -> bool:
        """True until an hour has ended and the grace for stragglers is over."""
        grace_ms = int(self._plant.batches.settle_grace_s * MS_PER_S)
        return self._clock() < hour_start_ms(hour + 1) + grace_ms

    def whole_hour(
        self,
        line: str,
        hour: int,
        version: int,
        settings: LineSettings,
        *,
        also: tuple[int, int] | None = None,
        known: Mapping[SeriesKey, StoredState] = _NOTHING_KNOWN,
    ) -> tuple[WholeHour, tuple[int, int]]:
        """An hour computed from its start, and the offsets it read.

        Args:
            line: name of the line.
            hour: the hour.
            version: that of the partition before anything else of the hour was read.
            settings: those to compute it under.
            also: offsets that the ledger does not know to belong to the hour yet.
            known: states of this batch that the ledger does not know yet.
        """
        ranges = _with_range(self.ledger.ranges(line, hour), also)
        readings, quarantined, kept_below = while_it_lasts(
            lambda: self._records(line, hour, ranges, settings), self.log, line
        )
        computed = self.builder(line).whole(
            hour, version, concat(readings), tuple(quarantined), known, settings
        )
        if kept_below:
            computed = replace(computed, kept_below=kept_below)
        return computed, (ranges[0][0], ranges[-1][1]) if ranges else (0, 0)

    def _records(
        self, line: str, hour: int, ranges: list[tuple[int, int]], settings: LineSettings
    ) -> tuple[list[Readings], list[Quarantined], int]:
        """What the log says of an hour, and the tables where the log no longer does."""
        kept = KeptReadings(self.log, self.ledger, self.store, line)
        present, standing = kept.split(hour, ranges)
        readings, quarantined = [standing.readings], list(standing.quarantined)
        for some in _portions(present, self._plant.batches.row_cap):
            decoded = decode(self.log.read(line, some), settings)
            for found, rows, set_aside in _by_hour(decoded):
                if found == hour:
                    readings.append(rows)
                    quarantined.extend(set_aside)
        return readings, quarantined, standing.below

    def builder(self, line: str) -> HourBuilder:
        """Builds one change of an hour of the line."""
        return HourBuilder(self.ledger, self.store, line)

    def report(
        self, line: str, change: HourChange, version: int, counts: Counter[str]
    ) -> HourReport:
        """An hour after its commit."""
        dirty = change.hour in self.ledger.dirty(line)
        checkpoint_in, checkpoint_out = checkpoints(self.ledger, line, change.hour)
        files = self.ledger.hour_files(line, change.hour)
        total = {
            name: sum(file.rows for file in files.get(name, ()))
            for name in schema.TABLES
            if name != schema.ACTIVITY.name
        }
        return HourReport(
            line=line,
            hour=change.hour,
            version=version,
            settings_version=change.settings.version,
            code_version=code_version(),
            settled=change.settled,
            outdated=change.settings.version != self._plant.line_settings(line).version,
            dirty=dirty,
            complete=not self.is_open(change.hour) and not dirty,
            checkpoint_in=checkpoint_in,
            checkpoint_out=checkpoint_out,
            rows=change.rows,
            total=total,
            anomalies=change.anomalies,
            duplicates=counts["duplicates"],
            conflicts=counts["conflicts"],
            kept_below=change.kept_below,
        )


class _Batch:
    """One live batch while it is put together, hour by hour, oldest first."""

    def __init__(
        self,
        engine: Engine,
        line: str,
        current: LineSettings,
        span: tuple[int, int],
        run_id: str,
        hours: list[int],
    ) -> None:
        self._engine = engine
        self._line = line
        self._current = current
        self._span = span
        self._run_id = run_id
        self._versions = engine.ledger.versions(line, hours)  # before all else: see there
        self._known: dict[SeriesKey, StoredState] = {}
        self._asked: set[SeriesKey] = set()
        self._ranges: set[int] = set()
        self._dirty: list[DirtyMark] = []
        self._cleared: list[int] = []
        self.changes: list[HourChange] = []
        self.hour_counts: list[Counter[str]] = []
        self.counts: Counter[str] = Counter()

    def add(self, hour: int, readings: Readings, quarantined: tuple[Quarantined, ...]) -> None:
        """Takes one hour's part of the batch; hours come oldest first."""
        self._ranges.add(hour)
        assigned = self._engine.ledger.assignment(self._line, hour) or self._current
        if assigned.version != self._current.version:
            if self._engine.is_open(hour) and not self._overtaken(readings, hour).any():
                self._compute_whole(hour)
            else:
                self._leave(hour, readings, OTHER_SETTINGS)
                if quarantined:
                    self._dirty.append(DirtyMark(hour, NO_SERIES, OTHER_SETTINGS, len(quarantined)))
            return
        late = self._overtaken(readings, hour)
        if late.any():
            self._leave(hour, readings.take(late), "late")
            readings = readings.take(~late)
        if not len(readings) and not quarantined:
            return
        change, counts = self._engine.builder(self._line).extend(
            hour,
            self._versions[hour],
            readings,
            quarantined,
            self._known,
            self._current,
            self._run_id,
        )
        self._take(change, counts)

    def claim(self, hours: Iterable[int]) -> None:
        """Notes hours that other settings would put some messages into."""
        self._ranges.update(hours)

    def commit(self, decoded: Decoded, seconds: float) -> Commit:
        """The batch as one transaction."""
        counts = Counter({f"quarantined.{name}": n for name, n in decoded.reasons.items()})
        for change in self.changes:
            counts.update({f"rows.{name}": n for name, n in change.rows.items()})
            counts["anomalies"] += change.anomalies
        counts.update(
            {
                "batches": 1,
                "misnamed": decoded.misnamed,
                "duplicates": self.counts["duplicates"],
                "conflicts": self.counts["conflicts"],
                "late_rows": self.counts["late_rows"],
            }
        )
        return Commit(
            line=self._line,
            kind="live",
            lo=self._span[0],
            hi=self._span[1],
            run_id=self._run_id,
            code_version=code_version(),
            hours=tuple(self.changes),
            ranges=tuple(sorted(self._ranges)),
            narrower=offset_spans(decoded, self._span),
            dirty=tuple(self._dirty),
            cleared=tuple(self._cleared),
            counts=+counts,
            seconds=seconds,
        )

    def _overtaken(
        self, readings: Readings, hour: int
    ) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Which readings belong to series that have gone on to a later hour."""
        keys = {readings.keys[code] for code in np.unique(readings.series)}
        unknown = keys - self._asked
        self._known |= self._engine.ledger.states(self._line, unknown)
        self._asked |= unknown
        ahead = [key in self._known and self._known[key].hour > hour for key in readings.keys]
        return np.array(ahead, np.bool_)[readings.series]

    def _leave(self, hour: int, readings: Readings, reason: str) -> None:
        """Leaves readings to a rerun of their hour."""
        series, rows = np.unique(readings.series, return_counts=True)
        for code, count in zip(series.tolist(), rows.tolist(), strict=True):
            self._dirty.append(DirtyMark(hour, readings.keys[code].text, reason, count))
        self.counts["late_rows"] += len(readings)

    def _compute_whole(self, hour: int) -> None:
        """The open hour from its start, under settings that have changed."""
        self._cleared += [i for i, _ in self._engine.ledger.dirty(self._line).get(hour, [])]
        computed, _ = self._engine.whole_hour(
            self._line,
            hour,
            self._versions[hour],
            self._current,
            also=self._span,
            known=self._known,
        )
        builder = self._engine.builder(self._line)
        change = builder.replacement(computed, self._run_id, settled=False)
        self._take(change, computed.rows.counts)

    def _take(self, change: HourChange, counts: Counter[str]) -> None:
        for key, state in change.states.items():
            self._known[key] = StoredState(change.hour, state)
        self.changes.append(change)
        self.hour_counts.append(counts)
        self.counts += counts


def _by_hour(decoded: Decoded) -> list[tuple[int, Readings, tuple[Quarantined, ...]]]:
    """Readings by hour of event time and set-aside messages by hour of receive time."""
    received = np.array([entry.received for entry in decoded.quarantine], np.int64)
    set_aside: dict[int, list[Quarantined]] = {}
    for hour, entry in zip(hour_of_each(received).tolist(), decoded.quarantine, strict=True):
        set_aside.setdefault(hour, []).append(entry)
    readings = dict(split_hours(decoded.readings))
    empty = Readings.empty()
    return [
        (hour, readings.get(hour, empty), tuple(set_aside.get(hour, ())))
        for hour in sorted({*readings, *set_aside})
    ]


def _with_range(
    ranges: list[tuple[int, int]], also: tuple[int, int] | None
) -> list[tuple[int, int]]:
    return ranges if also is None or also in ranges else [*ranges, also]


def _portions(ranges: list[tuple[int, int]], rows: int) -> Iterator[list[tuple[int, int]]]:
    """Ranges that are read at a time: about `rows` records, however small the ranges are."""
    some: list[tuple[int, int]] = []
    held = 0
    for lo, hi in ranges:
        if some and held + hi - lo > rows:
            yield some
            some, held = [], 0
        some.append((lo, hi))
        held += hi - lo
    if some:
        yield some


__all__ = ["BatchReport", "Engine", "HourReport", "RerunKind", "SettleReport", "code_version"]
