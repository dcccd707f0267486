"""Local maxima of a sampled curve, as `scipy.signal.find_peaks` finds them."""

import numpy as np

from iiot_platform.analytics.rows import Floats, Ints


def find_peaks(x: Floats, height: float) -> Ints:
    """Positions of the local maxima of at least `height`, ascending.

    A peak is a sample, or a plateau of equal samples, with a lower sample on both sides; of a
    plateau the middle counts, rounded down. The first and last sample are never peaks.

    Args:
        x: finite samples, float64[n].
        height: smallest value of a peak.
    """
    if len(x) == 0:
        return np.zeros(0, np.int64)
    first = np.concatenate(([0], np.flatnonzero(x[1:] != x[:-1]) + 1))
    last = np.concatenate((first[1:], [len(x)])) - 1
    level = x[first]
    inner = np.flatnonzero((level[1:-1] > level[:-2]) & (level[1:-1] > level[2:])) + 1
    middle: Ints = (first[inner] + last[inner]) // 2
    return middle[x[middle] >= height]
