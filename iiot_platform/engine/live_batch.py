"""One live batch while it is put together, hour by hour, oldest first."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.activity import NO_SERIES
from iiot_platform.engine.code_version import code_version
from iiot_platform.engine.commit import Commit, DirtyMark, HourChange, StoredState
from iiot_platform.engine.decode import Decoded, Quarantined
from iiot_platform.engine.offset_spans import offset_spans
from iiot_platform.engine.readings import Bools, Readings
from iiot_platform.engine.settle import OTHER_SETTINGS

if TYPE_CHECKING:
    from iiot_platform.engine.engine import Engine


class LiveBatch:
    """What a batch changes; hours come oldest first.

    Args:
        engine: computes it.
        line: name of the line.
        current: the settings in force.
        span: the offsets of the batch.
        run_id: goes on every row.
        hours: every hour that it has rows of.
    """

    def __init__(
        self,
        engine: "Engine",
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
        counts.update({f"ignored.{name}": n for name, n in decoded.ignored.items()})
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
            lifecycle=decoded.lifecycle,
            seconds=seconds,
        )

    def _overtaken(self, readings: Readings, hour: int) -> Bools:
        """Which readings belong to series that have gone on to a later hour."""
        keys = {readings.keys[code] for code in np.unique(readings.series)}
        unknown = keys - self._asked
        self._known |= self._engine.ledger.states(self._line, unknown)
        self._asked |= unknown
        ahead = [key in self._known and self._known[key].hour > hour for key in readings.keys]
        overtaken: Bools = np.array(ahead, np.bool_)[readings.series]
        return overtaken

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
