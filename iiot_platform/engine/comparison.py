"""What would change: verdicts that stand against those of a candidate, added up hour by hour."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np

from iiot_platform.analytics.tally import alerts
from iiot_platform.config.line_settings import LineSettings
from iiot_platform.config.shifts import ShiftCalendar, ShiftDay
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.engine.readings import Bools, Ints
from iiot_platform.engine.replay import ReplayedHour
from iiot_platform.engine.traces import TestedQuantity, Trace

EXAMPLES: Final = 3
_MS_PER_MINUTE: Final = 60 * MS_PER_S
Side = Literal["standing", "candidate"]
_SIDES: Final[tuple[Side, Side]] = ("standing", "candidate")


class Verdict(NamedTuple):
    """One verdict; None where the row is not there at all."""

    z_score: float
    threshold: float
    anomaly: bool


class Example(NamedTuple):
    """A row that is judged differently; `ts` in Unix ms."""

    ts: int
    value: float
    standing: Verdict | None
    candidate: Verdict | None


@dataclass
class QuantityComparison:
    """One tested quantity over the whole range.

    Attributes:
        quantity: which one.
        rows: rows of either.
        standing: anomalies that stand.
        candidate: anomalies under the candidate.
        added: anomalies under the candidate alone.
        removed: anomalies that stand and would not be any more.
        learning: rows that the candidate had no model for yet.
        rows_added: rows under the candidate alone.
        rows_removed: rows that stand alone.
        examples_added: the first rows of `added`.
        examples_removed: the first rows of `removed`.
    """

    quantity: TestedQuantity
    rows: int = 0
    standing: int = 0
    candidate: int = 0
    added: int = 0
    removed: int = 0
    learning: int = 0
    rows_added: int = 0
    rows_removed: int = 0
    examples_added: list[Example] = field(default_factory=list)
    examples_removed: list[Example] = field(default_factory=list)

    @property
    def unchanged(self) -> int:
        """Anomalies of both."""
        return self.standing - self.removed

    def add(self, standing: Trace | None, candidate: Trace | None) -> None:
        """Takes one hour's rows."""
        old, new = standing or _NO_TRACE, candidate or _NO_TRACE
        times = np.union1d(old.ts, new.ts)
        was, is_now = _flags(old, times), _flags(new, times)
        self.rows += len(times)
        self.standing += int(was.sum())
        self.candidate += int(is_now.sum())
        self.added += int((is_now & ~was).sum())
        self.removed += int((was & ~is_now).sum())
        self.learning += int(new.learning.sum())
        self.rows_added += len(times) - len(old.ts)
        self.rows_removed += len(times) - len(new.ts)
        for chosen, examples in (
            (is_now & ~was, self.examples_added),
            (was & ~is_now, self.examples_removed),
        ):
            for ts in times[chosen][: EXAMPLES - len(examples)].tolist():
                examples.append(_example(ts, old, new))


class ShiftLoad(NamedTuple):
    """A line's alarms in one shift.

    An *alarm minute* is a minute of local time in which at least one quantity of the line has an
    alert: a flagged row outside the refractory points of the alert before. At the start of the
    range no alert is taken to have gone before.
    """

    shift: ShiftDay
    alarm_minutes_standing: int
    alarm_minutes_candidate: int
    alerts_standing: int
    alerts_candidate: int


class Comparison:
    """Adds up hours; memory goes with the number of series and shifts, not of rows.

    Args:
        candidate: the settings that are tried.
        calendar: the plant's shifts.
    """

    def __init__(self, candidate: LineSettings, calendar: ShiftCalendar) -> None:
        self._settings = candidate
        self._calendar = calendar
        self._quantities: dict[TestedQuantity, QuantityComparison] = {}
        self._held: dict[tuple[Side, TestedQuantity], int] = {}
        self._minutes: Counter[tuple[ShiftDay, Side]] = Counter()
        self._alerts: Counter[tuple[ShiftDay, Side]] = Counter()
        self.hours: list[int] = []

    def add(self, replayed: ReplayedHour) -> None:
        """Takes one hour; hours come oldest first."""
        self.hours.append(replayed.hour)
        for quantity in sorted({*replayed.standing, *replayed.candidate}):
            found = self._quantities.setdefault(quantity, QuantityComparison(quantity))
            found.add(replayed.standing.get(quantity), replayed.candidate.get(quantity))
        self._alarms("standing", replayed.standing, replayed.settings)
        self._alarms("candidate", replayed.candidate, self._settings)

    @property
    def quantities(self) -> list[QuantityComparison]:
        """Every quantity, those that change most first."""
        return sorted(
            self._quantities.values(),
            key=lambda found: (-found.added - found.removed, -found.candidate, found.quantity),
        )

    @property
    def shifts(self) -> list[ShiftLoad]:
        """The shifts that the hours touch, oldest first."""
        days = {day for day, _ in self._minutes}
        return [
            ShiftLoad(
                day,
                *(self._minutes[day, side] for side in _SIDES),
                *(self._alerts[day, side] for side in _SIDES),
            )
            for day in sorted(days)
        ]

    def _alarms(
        self, side: Side, found: dict[TestedQuantity, Trace], settings: LineSettings
    ) -> None:
        times = [_NO_TIMES]
        for quantity, trace in found.items():
            refractory = settings.detector(quantity.series).refractory
            held = self._held.get((side, quantity), 0)
            alert, self._held[side, quantity] = alerts(
                trace.anomaly.astype(np.int8), held, refractory
            )
            times.append(trace.ts[alert == 1])
        every = np.concatenate(times)
        for minute, count in zip(*_minutes(every), strict=True):
            shift = self._calendar.shift_at(minute)
            self._minutes[shift, side] += 1
            self._alerts[shift, side] += count
        for ts in _spans(found.values()):
            # a quiet shift is told too
            self._minutes[self._calendar.shift_at(ts), side] += 0


_NO_TIMES: Final = np.zeros(0, np.int64)
_NOTHING: Final = np.zeros(0)
_NO_TRACE: Final = Trace(_NO_TIMES, _NOTHING, np.zeros(0, np.bool_), *[_NOTHING] * 4)


def _flags(trace: Trace, times: Ints) -> Bools:
    flags = np.zeros(len(times), np.bool_)
    flags[np.searchsorted(times, trace.ts)] = trace.anomaly
    return flags


def _example(ts: int, old: Trace, new: Trace) -> Example:
    was, is_now = _verdict(ts, old), _verdict(ts, new)
    trace = old if is_now is None else new
    return Example(ts, float(trace.value[np.searchsorted(trace.ts, ts)]), was, is_now)


def _verdict(ts: int, trace: Trace) -> Verdict | None:
    row = int(np.searchsorted(trace.ts, ts))
    if row == len(trace.ts) or trace.ts[row] != ts:
        return None
    return Verdict(
        float(trace.z_score[row]), float(trace.z_score_thresh[row]), bool(trace.anomaly[row])
    )


def _minutes(times: Ints) -> tuple[list[int], list[int]]:
    """The minutes (start, Unix ms) that the times fall in, and how many in each."""
    minutes, counts = np.unique(times - times % _MS_PER_MINUTE, return_counts=True)
    return minutes.tolist(), counts.tolist()


def _spans(found: Iterable[Trace]) -> list[int]:
    return [int(ts) for trace in found for ts in (trace.ts[0], trace.ts[-1])]
