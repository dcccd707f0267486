"""Mean and standard deviation in two passes, with the order of every addition defined.

First sum = ((x0 + x1) + x2) + ..., from the oldest value to the newest, and mean = sum / n; then
the squares of x - mean, added in the same order, and std = sqrt(squares / (n - 1)). No pairwise,
compensated or fused addition: one order, so that plain and compiled code agree to the last bit.
"""

import math
from typing import Final, NamedTuple

import numpy as np

from iiot_platform.analytics.rows import Floats
from iiot_platform.core.parameters import DetectorParameters

RELATIVE_FLOOR: Final = 1e-4
"""Floor of std as a share of |mean|, where neither resolution nor floor is given."""
ABSOLUTE_FLOOR: Final = 1e-12
SMALLEST_FLOOR: Final = 1e-150
"""No given floor is taken below this, so that z stays finite."""
MANY_WINDOWS: Final = 384
"""From so many windows on it is faster to add them side by side."""
CHUNK_VALUES: Final = 1 << 18


class Floor(NamedTuple):
    """Floor of std: max(absolute, relative x |mean|)."""

    absolute: float
    relative: float

    @classmethod
    def of(cls, parameters: DetectorParameters) -> "Floor":
        """The floor that the parameters ask for."""
        if parameters.scale_floor is not None:
            return cls(max(parameters.scale_floor, SMALLEST_FLOOR), 0.0)
        if parameters.resolution is not None:
            return cls(max(parameters.resolution / math.sqrt(12.0), SMALLEST_FLOOR), 0.0)
        return cls(ABSOLUTE_FLOOR, RELATIVE_FLOOR)

    def apply(self, location: Floats, scale: Floats) -> Floats:
        """The scales, none below its floor."""
        return np.maximum(scale, np.maximum(self.absolute, self.relative * np.abs(location)))


def two_pass(windows: Floats) -> tuple[Floats, Floats]:
    """Mean and sample standard deviation (n - 1) of each row, float64[rows, n], oldest first."""
    if len(windows) >= MANY_WINDOWS:
        return _across(windows)
    chunk = max(CHUNK_VALUES // windows.shape[1], 1)
    if len(windows) <= chunk:
        return _along(windows)
    parts = [_along(windows[row : row + chunk]) for row in range(0, len(windows), chunk)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _along(windows: Floats) -> tuple[Floats, Floats]:
    """Each row added by itself; `accumulate` is the sum whose order numpy guarantees."""
    n = windows.shape[1]
    mean = np.add.accumulate(windows, axis=1)[:, -1] / n
    deviation = windows - mean[:, None]
    np.multiply(deviation, deviation, out=deviation)
    squares = np.add.accumulate(deviation, axis=1, out=deviation)[:, -1]
    return mean, np.sqrt(squares / (n - 1))


def _across(windows: Floats) -> tuple[Floats, Floats]:
    """All rows side by side, one column after the other: the same additions, many at once."""
    n = windows.shape[1]
    columns = windows.T
    mean = columns[0].copy()
    for column in columns[1:]:
        mean += column
    mean /= n
    deviation = columns[0] - mean
    squares = deviation * deviation
    for column in columns[1:]:
        np.subtract(column, mean, out=deviation)
        np.multiply(deviation, deviation, out=deviation)
        squares += deviation
    return mean, np.sqrt(squares / (n - 1))
