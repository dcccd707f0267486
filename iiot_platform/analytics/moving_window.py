"""Detectors that test a value against a moving window of the values accepted before it.

Most values are normal, so a block of rows is tested as if each value entered the window; what
holds up to the first anomaly is kept, and the rest is tested again. Each row still sees exactly
its own window, and is computed from it alone: speed and batch cuts do not show in the result.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar

import msgspec
import numpy as np

from iiot_platform.analytics.moments import Floor
from iiot_platform.analytics.rows import Floats, bytes_of, floats_of
from iiot_platform.analytics.series import Scan, SeriesDetector, SeriesState
from iiot_platform.core.quality import Status

FIRST_BLOCK: Final = 64

S = TypeVar("S", bound=SeriesState)


@dataclass(frozen=True)
class MovingWindow(SeriesDetector[S]):
    """z = (x - location) / scale of the window; an anomaly, |z| > threshold, does not enter it.

    After `relearn_after` consecutive anomalies the window is emptied and learnt anew from the
    values that follow, with one shift event. The shift latches `off_reference` where the value
    is beyond the threshold of the frozen reference too: a jump back to it does not.
    """

    largest_block: ClassVar[int] = 4096
    """Rows that are tested at once at most."""

    @abstractmethod
    def estimate(self, windows: Floats) -> tuple[Floats, Floats]:
        """Location and scale, not floored, of each row of float64[rows, window]."""

    def model(self, state: S) -> tuple[float, float] | None:
        """Location and scale that the next value is tested against; None while learning."""
        window = floats_of(state.window)
        if len(window) < self.parameters.window:
            return None
        location, scale = self._floored(window[None, :])
        return float(location[0]), float(scale[0])

    def scan(self, state: S, values: Floats) -> tuple[Scan, S]:
        """Test accepted values in order; see the class."""
        size, threshold = self.parameters.window, self.parameters.threshold
        out = Scan.empty(len(values))
        past = floats_of(state.window)
        kept = np.concatenate((past, values))  # what was accepted, and room for all
        start, stop = 0, len(past)  # the window is kept[start:stop]
        streak, reference, off = state.streak, state.reference, state.off_reference
        row, n, block = 0, len(values), FIRST_BLOCK
        while row < n:
            if stop - start < size:
                end = min(row + size - (stop - start), n)
                kept[stop : stop + end - row] = values[row:end]
                out.status[row:end] = Status.WARMING
                out.off_reference[row:end] = off
                stop, row = stop + end - row, end
                continue
            end = min(row + min(block, self.largest_block), n)
            kept[stop : stop + end - row] = values[row:end]
            windows = _sliding(kept, start, end - row, size)
            location, scale = self._floored(windows)
            reference = reference or (float(location[0]), float(scale[0]))
            z = (values[row:end] - location) / scale
            outside = np.abs(z) > threshold
            normal = int(np.argmax(outside)) if outside.any() else end - row
            block = 2 * block if normal == end - row else max(FIRST_BLOCK, normal)

            block_end = row + normal
            out.model_avg[row:block_end] = location[:normal]
            out.model_std[row:block_end] = scale[:normal]
            out.z_score[row:block_end] = z[:normal]
            out.off_reference[row:block_end] = off
            streak = 0 if normal else streak
            start, stop = start + normal, stop + normal
            if block_end == end:
                row = end
                continue

            run_end = self._run(out, values, block_end, streak, location[normal], scale[normal])
            streak += run_end - block_end
            out.off_reference[block_end:run_end] = off
            row = run_end
            if streak == self.parameters.relearn_after:
                away = abs(float(values[row - 1]) - reference[0]) > threshold * reference[1]
                off = off or away
                out.shift_event[row - 1] = 1
                out.off_reference[row - 1] = off
                out.status[row - 1] = Status.RELEARNED
                start, streak = stop, 0
        block_state = msgspec.structs.replace(
            state,
            window=bytes_of(kept[start:stop]),
            streak=streak,
            reference=reference,
            off_reference=off,
        )
        return out, block_state

    def _run(
        self,
        out: Scan,
        values: Floats,
        begin: int,
        streak: int,
        location: float,
        scale: float,
    ) -> int:
        """Fill the anomalies from `begin` on, which all see one window, and return their end.

        The run ends before the first normal value, and with the anomaly that relearns.
        """
        relearn_after = self.parameters.relearn_after
        left = relearn_after - streak if relearn_after > streak else math.inf
        end, step = begin, FIRST_BLOCK
        while end < len(values) and end - begin < left:
            upto = int(min(end + step, begin + left, len(values)))
            z = (values[end:upto] - location) / scale
            inside = np.abs(z) <= self.parameters.threshold
            length = int(np.argmax(inside)) if inside.any() else upto - end
            out.z_score[end : end + length] = z[:length]
            end, step = end + length, 2 * step
            if end < upto:
                break
        out.model_avg[begin:end] = location
        out.model_std[begin:end] = scale
        out.anomaly[begin:end] = 1
        return end

    def _floored(self, windows: Floats) -> tuple[Floats, Floats]:
        location, scale = self.estimate(windows)
        return location, Floor.of(self.parameters).apply(location, scale)


def _sliding(kept: Floats, start: int, rows: int, size: int) -> Floats:
    """Windows of `size` that begin at `start` and each of the next rows, without a copy."""
    step = kept.itemsize
    return np.ndarray((rows, size), np.float64, kept, start * step, (step, step))
