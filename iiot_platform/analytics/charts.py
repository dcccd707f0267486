"""Control charts: detectors that test against a reference learnt once, not a moving window."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np

from iiot_platform.analytics.moments import Floor, two_pass
from iiot_platform.analytics.rows import Floats, bytes_of, floats_of
from iiot_platform.analytics.series import Scan, SeriesDetector, SeriesState
from iiot_platform.core.quality import Status

Memory = tuple[float, float]
"""What a chart remembers of the values so far; each chart says what."""
Recursion = Callable[[Memory, float], tuple[Memory, float]]


class ChartState(SeriesState, frozen=True, kw_only=True):
    """What influences later rows of a chart; the window is empty once the reference is known.

    Attributes:
        memory: what the chart remembers of the values since its reference.
    """

    memory: Memory


S = TypeVar("S", bound=ChartState)


@dataclass(frozen=True)
class Chart(SeriesDetector[S]):
    """A statistic of z = (x - mean) / std against the reference; an anomaly beyond its limit.

    The reference is the first full window and does not move; every accepted value, an anomaly
    too, enters the statistic. After `relearn_after` consecutive anomalies a reference is learnt
    anew, with one shift event, and `off_reference` is latched: the level has left the one that
    was acknowledged. With `relearn_after` 0 the chart keeps its reference.
    """

    @abstractmethod
    def recursion(self) -> Recursion:
        """The chart's own step: memory and z in, memory behind z and the statistic at it out."""

    def model(self, state: S) -> tuple[float, float] | None:
        """Mean and std of the reference; None while learning."""
        window = floats_of(state.window).tolist()
        if state.reference is None and len(window) == self.parameters.window:
            return self._learnt(window)
        return state.reference

    def scan(self, state: S, values: Floats) -> tuple[Scan, S]:
        """Test accepted values in order; see the class."""
        size, limit, relearn_after = (
            self.parameters.window,
            self.limit,
            self.parameters.relearn_after,
        )
        out = Scan.empty(len(values))
        zero, step = self.fresh(size).memory, self.recursion()
        window = floats_of(state.window).tolist()
        memory, streak = state.memory, state.streak
        reference, off = state.reference, state.off_reference
        mean, std = reference or (0.0, 0.0)
        means, stds, statistics, latch = ([0.0] * len(values) for _ in range(4))
        for row, value in enumerate(values.tolist()):
            if reference is None and len(window) < size:
                window.append(value)
                out.status[row] = Status.WARMING
                latch[row] = off
                continue
            if reference is None:
                mean, std = reference = self._learnt(window)
                window = []
            memory, statistic = step(memory, (value - mean) / std)
            means[row], stds[row], statistics[row] = mean, std, statistic
            if abs(statistic) > limit:
                out.anomaly[row] = 1
                streak += 1
                if streak == relearn_after:
                    out.status[row] = Status.RELEARNED
                    out.shift_event[row] = 1
                    off = True
                    reference, memory, streak = None, zero, 0
            else:
                streak = 0
            latch[row] = off
        out.model_avg[:], out.model_std[:], out.z_score[:] = means, stds, statistics
        out.off_reference[:] = latch
        return out, msgspec.structs.replace(
            state,
            window=bytes_of(window),
            streak=streak,
            reference=reference,
            off_reference=off,
            memory=memory,
        )

    def _learnt(self, window: list[float]) -> tuple[float, float]:
        mean, std = two_pass(np.array([window]))
        std = Floor.of(self.parameters).apply(mean, std)
        return float(mean[0]), float(std[0])
