"""The z-score scan, compiled: the same additions in the same order as the plain one.

Importing this module imports numba (about a second) and its first call compiles or loads the
kernel, so that only a large batch may do it. No fast-math and no contraction to fused
multiply-add: each operation rounds as IEEE 754 says, like numpy's.
"""

import math
from typing import Any, Final, NamedTuple

import numba

from iiot_platform.core.quality import Status

LANES: Final = 8
WARMING: Final = int(Status.WARMING)
RELEARNED: Final = int(Status.RELEARNED)


class Settings(NamedTuple):
    """What a scan is told."""

    size: int
    threshold: float
    absolute_floor: float
    relative_floor: float
    relearn_after: int


class Memory(NamedTuple):
    """What a scan takes over and hands on; the window is kept[start:stop]."""

    start: int
    stop: int
    streak: int
    has_reference: bool
    reference_mean: float
    reference_std: float
    off_reference: bool


def _compiled(function: Any) -> Any:
    """The function compiled; kept on disk where the installation allows it."""
    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to keep it in can be written
        return numba.njit(error_model="numpy")(function)


@_compiled
def _two_pass(kept: Any, start: int, size: int) -> Any:  # noqa: PLR0915 - unrolled by hand
    """Means and sums of squared deviations of the eight windows that begin at start, start + 1...

    A single chain of additions waits for each of them. Eight windows are eight independent
    chains, which the processor works on side by side, each in its own order.
    """
    w0 = kept[start + 0 : start + 0 + size]
    w1 = kept[start + 1 : start + 1 + size]
    w2 = kept[start + 2 : start + 2 + size]
    w3 = kept[start + 3 : start + 3 + size]
    w4 = kept[start + 4 : start + 4 + size]
    w5 = kept[start + 5 : start + 5 + size]
    w6 = kept[start + 6 : start + 6 + size]
    w7 = kept[start + 7 : start + 7 + size]
    m0 = w0[0]
    m1 = w1[0]
    m2 = w2[0]
    m3 = w3[0]
    m4 = w4[0]
    m5 = w5[0]
    m6 = w6[0]
    m7 = w7[0]
    for k in range(1, size):
        m0 += w0[k]
        m1 += w1[k]
        m2 += w2[k]
        m3 += w3[k]
        m4 += w4[k]
        m5 += w5[k]
        m6 += w6[k]
        m7 += w7[k]
    m0 /= size
    m1 /= size
    m2 /= size
    m3 /= size
    m4 /= size
    m5 /= size
    m6 /= size
    m7 /= size
    q0 = q1 = q2 = q3 = q4 = q5 = q6 = q7 = 0.0
    for k in range(size):
        d0 = w0[k] - m0
        d1 = w1[k] - m1
        d2 = w2[k] - m2
        d3 = w3[k] - m3
        d4 = w4[k] - m4
        d5 = w5[k] - m5
        d6 = w6[k] - m6
        d7 = w7[k] - m7
        q0 += d0 * d0
        q1 += d1 * d1
        q2 += d2 * d2
        q3 += d3 * d3
        q4 += d4 * d4
        q5 += d5 * d5
        q6 += d6 * d6
        q7 += d7 * d7
    means = (m0, m1, m2, m3, m4, m5, m6, m7)
    squares = (q0, q1, q2, q3, q4, q5, q6, q7)
    return means, squares


@_compiled
def scan(values: Any, kept: Any, memory: Any, settings: Any, out: Any) -> Any:  # noqa: PLR0915 - calls in a kernel cost compile time
    """Fill the columns of a scan; see `MovingWindow.scan`.

    Eight rows are tested as if each value entered the window; what holds up to the first anomaly
    is kept.

    Args:
        values: accepted values, float64[n].
        kept: the window, then room for n + 8 values.
        memory: the `Memory` before the first value.
        settings: `Settings`.
        out: `Scan` of n rows, all zero.

    Returns:
        The `Memory` behind the last value.
    """
    size, threshold, absolute_floor, relative_floor, relearn_after = settings
    start, stop, streak, has_reference, reference_mean, reference_std, off = memory
    n = len(values)
    row = 0
    while row < n:
        if stop - start < size:
            kept[stop] = values[row]
            stop += 1
            out.status[row] = WARMING
            out.off_reference[row] = off
            row += 1
            continue
        lanes = min(LANES, n - row)
        for lane in range(lanes):
            kept[stop + lane] = values[row + lane]
        means, squares = _two_pass(kept, start, size)
        for lane in range(lanes):
            mean = means[lane]
            std = math.sqrt(squares[lane] / (size - 1))
            std = max(std, absolute_floor, relative_floor * abs(mean))
            if not has_reference:
                has_reference = True
                reference_mean = mean
                reference_std = std
            z = (values[row] - mean) / std
            normal = abs(z) <= threshold
            if normal:
                out.model_avg[row] = mean
                out.model_std[row] = std
                out.z_score[row] = z
                out.off_reference[row] = off
                streak = 0
                start += 1
                stop += 1
                row += 1
                continue
            while not normal:  # anomalies in a row see one window
                out.model_avg[row] = mean
                out.model_std[row] = std
                out.z_score[row] = z
                out.anomaly[row] = 1
                streak += 1
                if streak == relearn_after:
                    away = abs(values[row] - reference_mean) > threshold * reference_std
                    off = off or away
                    out.shift_event[row] = 1
                    out.status[row] = RELEARNED
                    start = stop
                    streak = 0
                out.off_reference[row] = off
                row += 1
                if start == stop or row == n:
                    break
                z = (values[row] - mean) / std
                normal = abs(z) <= threshold
            break
    return Memory(start, stop, streak, has_reference, reference_mean, reference_std, off)
