"""The engine: live batches and whole hours, from the log to a commit. Knows no Dagster."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, Literal

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_S, hour_of, hour_start_ms, now_ms
from iiot_platform.core.names import SeriesKey
from iiot_platform.core.paths import Home
from iiot_platform.engine.code_version import code_version
from iiot_platform.engine.commit import HourChange, RerunKind, StoredState
from iiot_platform.engine.decode import decode
from iiot_platform.engine.errors import HourOpenError
from iiot_platform.engine.hour import HourBuilder, WholeHour
from iiot_platform.engine.hour_input import by_hour, hour_input
from iiot_platform.engine.kept_readings import KeptReadings
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.lifecycle_ledger import LedgerHistory
from iiot_platform.engine.live_batch import LiveBatch
from iiot_platform.engine.log_reader import LogReader
from iiot_platform.engine.messages import COLUMNS
from iiot_platform.engine.partitions import checkpoints, partitions
from iiot_platform.engine.report import BatchReport, HourReport, SettleReport
from iiot_platform.engine.settle import recompute
from iiot_platform.engine.table_store import TableStore

_NOTHING_KNOWN: Final[Mapping[SeriesKey, StoredState]] = {}


class Engine:
    """Computes the tables of a plant's lines below one home.

    Args:
        home: where the log, the tables and the ledger are.
        plant: the plant file; its settings are the current ones.
        sinks: names of the databases that want to be told of every change.
        clock: Unix milliseconds; tells which hours have closed.
    """

    def __init__(
        self,
        home: Home,
        plant: Plant,
        *,
        sinks: Iterable[str] = (),
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
        records = self.log.read(line, self.log.present(line, [(lo, hi)]), COLUMNS)
        decoded = decode(records, current, LedgerHistory(self.ledger, line))
        parts = by_hour(decoded)
        batch = LiveBatch(self, line, current, (lo, hi), run_id, [hour for hour, _, _ in parts])
        for hour, readings, quarantined in parts:
            batch.add(hour, readings, quarantined)
            batch.claim(hour_of(entry.claimed) for entry in quarantined)
        batch.claim(decoded.hours)
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
    ) -> SettleReport:
        """Computes an hour whole from the log and compares it with what stood.

        An hour that has closed is settled by it.

        Args:
            line: name of the line.
            hour: the hour; one that has closed where the kind is `settle`.
            run_id: goes on every row that is written.
            settings: `keep` those assigned to the hour, or assign the `current` ones.
            kind: why; goes into the lineage.

        Raises:
            HourOpenError: an hour that is to be settled has not ended, or its grace is not over.
            CommitLostError: a live batch has changed the hour meanwhile; nothing was written.
            StorageError: the log, the tables or the ledger can not be read or written.
        """
        if kind == "settle" and self.is_open(hour):
            raise HourOpenError(line, hour)
        return recompute(self, line, hour, run_id=run_id, settings=settings, kind=kind)

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
        ranges = self.ledger.ranges(line, hour)
        if also is not None and also not in ranges:
            ranges.append(also)
        kept = KeptReadings(self.log, self.ledger, self.store, line)
        found = hour_input(
            self.log,
            kept,
            LedgerHistory(self.ledger, line),
            hour,
            ranges,
            settings,
            rows=self._plant.batches.row_cap,
        )
        computed = self.builder(line).whole(
            hour, version, found.readings, found.quarantined, known, settings
        )
        span = (ranges[0][0], ranges[-1][1]) if ranges else (0, 0)
        return replace(computed, kept_below=found.kept_below), span

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


__all__ = ["BatchReport", "Engine", "HourReport", "RerunKind", "SettleReport", "code_version"]
