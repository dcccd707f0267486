"""The robust z-score: median and median absolute deviation of a moving window."""

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from iiot_platform.analytics.moving_window import MovingWindow
from iiot_platform.analytics.rows import Floats
from iiot_platform.analytics.series import SeriesState

GAUSSIAN: Final = 1.4826
"""1 / the third quartile of the standard normal: MAD times this estimates std."""


class RobustZState(SeriesState, frozen=True, tag="robust_z"):
    """What influences later rows of a robust z-score series."""


@dataclass(frozen=True)
class RobustZ(MovingWindow[RobustZState]):
    """z = (x - median) / (1.4826·MAD) of the window; see `MovingWindow`."""

    largest_block: ClassVar[int] = 128

    def fresh(self, size: int) -> RobustZState:
        """The state before the first value, for a window of `size`."""
        return RobustZState(size=size)

    def estimate(self, windows: Floats) -> tuple[Floats, Floats]:
        """Median and scaled median absolute deviation of each window."""
        median = _medians(windows)
        return median, _medians(np.abs(windows - median[:, None])) * GAUSSIAN


def _medians(windows: Floats) -> Floats:
    """The median of each row; of an even number of values the mean of the middle two."""
    ordered = np.sort(windows, axis=1)
    half = ordered.shape[1] // 2
    if ordered.shape[1] % 2:
        return ordered[:, half]
    middle: Floats = (ordered[:, half - 1] + ordered[:, half]) / 2
    return middle
