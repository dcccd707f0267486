"""An air valve: command and travel times, four operations in each cycle of its machine."""

from collections.abc import Iterator
from typing import ClassVar, Final

import numpy as np

from simulator.devices import Device, Marked, Payload, Place
from simulator.faults import FaultClock, Occurrence
from simulator.quantities import SampleTimes
from simulator.randomness import Draw, Ints
from simulator.scenario import ValveSpec

OPERATIONS: Final = ("ExtendCmdTime", "ExtendTime", "RetractCmdTime", "RetractTime")
_TRAVEL: Final = (1, 3)
_STEP_OF_CYCLE: Final = (0.15, 0.35, 0.65, 0.85)
"""Each operation is reported in its own step of the machine's cycle."""


class Valve(Device):
    """An air valve; the value is how long an operation took, in whole ms.

    A missing end switch shows as the watchdog's time-out where the travel time belongs.
    """

    kind: ClassVar = "valve"

    def __init__(self, place: Place, spec: ValveSpec, faults: list[FaultClock]) -> None:
        super().__init__(place, faults)
        period_ms = 1000.0 * spec.period_s
        self.slack_ms = int(3 * period_ms)
        self._times = SampleTimes(
            place.seed, place.topic, interval_ms=period_ms, jitter_ms=spec.jitter_ms
        )
        self._steps = np.array([int(step * period_ms) for step in _STEP_OF_CYCLE])
        self._nominal = np.array(
            [spec.extend_cmd_ms, spec.extend_ms, spec.retract_cmd_ms, spec.retract_ms]
        )
        self._sigma_ms = spec.sigma_ms
        self._noise = Draw(place.seed, place.topic, "noise", width=len(OPERATIONS))

    def readings(self, start_ms: int, end_ms: int) -> tuple[Ints, list[Payload]]:
        """Readings in [start, end)."""
        first = max(self._times.first_at(start_ms) - 1, 0)
        count = max(self._times.first_at(end_ms) - first, 0)
        times = (self._times.of(first, count)[:, None] + self._steps).reshape(-1)
        values = self._nominal + self._sigma_ms * self._noise.normals(first, count)
        cycle = np.arange(first, first + count)
        for one in self.active(start_ms, end_ms, "slow_valve", "missing_end_switch"):
            lo, hi = self._cycles(one)
            inside = (cycle >= lo) & (cycle < hi)
            for column in self._touched(one):
                if one.fault.fault == "slow_valve":
                    values[inside, column] *= one.fault.size
                else:
                    values[inside, column] = one.fault.size
        whole = np.maximum(np.rint(values), 1.0).astype(np.int64).reshape(-1)
        kept = (times >= start_ms) & (times < end_ms)
        operations = [OPERATIONS[i % len(OPERATIONS)] for i in np.flatnonzero(kept).tolist()]
        name = self.place.device
        return times[kept], [
            {"ValveName": name, "TimeType": operation, "TimeValue": value}
            for operation, value in zip(operations, whole[kept].tolist(), strict=True)
        ]

    def marks(self, occurrence: Occurrence) -> Iterator[Marked]:
        """What an occurrence touches: one mark for each operation."""
        name = occurrence.fault.fault
        if name not in {"slow_valve", "missing_end_switch"}:
            for operation in OPERATIONS:
                yield Marked(
                    self.place.device, operation, occurrence.start_ms, occurrence.end_ms, None
                )
            return
        lo, hi = self._cycles(occurrence)
        starts = self._times.of(lo, hi - lo)
        for column in self._touched(occurrence):
            rows = starts + self._steps[column]
            yield Marked(
                self.place.device, OPERATIONS[column], int(rows[0]), int(rows[-1]) + 1, rows
            )

    def _touched(self, occurrence: Occurrence) -> tuple[int, ...]:
        """A slow valve is slow both ways; one end switch is missing at a time."""
        if occurrence.fault.fault == "slow_valve":
            return _TRAVEL
        return _TRAVEL[:1] if occurrence.sign > 0 else _TRAVEL[1:]

    def _cycles(self, occurrence: Occurrence) -> tuple[int, int]:
        """The cycles that begin during an occurrence, at least one."""
        first = self._times.first_at(occurrence.start_ms)
        return first, max(self._times.first_at(occurrence.end_ms), first + 1)
