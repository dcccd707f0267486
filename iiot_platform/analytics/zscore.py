"""The z-score of a value against the mean and standard deviation of a moving window."""

from dataclasses import dataclass

from iiot_platform.analytics.moments import two_pass
from iiot_platform.analytics.moving_window import MovingWindow
from iiot_platform.analytics.rows import Floats
from iiot_platform.analytics.series import SeriesState


class ZScoreState(SeriesState, frozen=True, tag="zscore"):
    """What influences later rows of a z-score series."""


@dataclass(frozen=True)
class ZScore(MovingWindow[ZScoreState]):
    """z = (x - mean) / std of the window, std with n - 1; see `MovingWindow`."""

    def fresh(self, size: int) -> ZScoreState:
        """The state before the first value, for a window of `size`."""
        return ZScoreState(size=size)

    def estimate(self, windows: Floats) -> tuple[Floats, Floats]:
        """Mean and sample standard deviation of each window."""
        return two_pass(windows)
