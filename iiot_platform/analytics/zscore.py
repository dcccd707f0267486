"""The z-score of a value against the mean and standard deviation of a moving window."""

import sys
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np

from iiot_platform.analytics.moments import Floor, two_pass
from iiot_platform.analytics.moving_window import MovingWindow
from iiot_platform.analytics.rows import Floats, bytes_of, floats_of
from iiot_platform.analytics.series import Scan, SeriesState

Engine = Literal["auto", "plain", "compiled"]
_KERNEL: Final = "iiot_platform.analytics.zscore_kernel"
WORTH_IMPORTING: Final = 100_000_000
"""Values x window that take as long without the kernel as it takes to import and load it."""


class ZScoreState(SeriesState, frozen=True, tag="zscore"):
    """What influences later rows of a z-score series."""


class _Tested:
    """What this process has tested without the kernel, values x window; no result depends on it."""

    work = 0


_tested: Final = _Tested()


@dataclass(frozen=True)
class ZScore(MovingWindow[ZScoreState]):
    """z = (x - mean) / std of the window, std with n - 1; see `MovingWindow`.

    Attributes:
        engine: `plain` numpy or the `compiled` kernel, equal to the last bit; `auto` takes the
            kernel once the process has tested so much that it would have repaid its import.
    """

    engine: Engine = "auto"

    def fresh(self, size: int) -> ZScoreState:
        """The state before the first value, for a window of `size`."""
        return ZScoreState(size=size)

    def estimate(self, windows: Floats) -> tuple[Floats, Floats]:
        """Mean and sample standard deviation of each window."""
        return two_pass(windows)

    def scan(self, state: ZScoreState, values: Floats) -> tuple[Scan, ZScoreState]:
        """Test accepted values in order; see `MovingWindow`."""
        if self._takes_kernel(len(values)):
            return self._scan_compiled(state, values)
        return super().scan(state, values)

    def _takes_kernel(self, n: int) -> bool:
        if self.engine != "auto":
            return self.engine == "compiled"
        if _KERNEL in sys.modules:
            return True
        _tested.work += n * self.parameters.window
        return _tested.work >= WORTH_IMPORTING

    def _scan_compiled(self, state: ZScoreState, values: Floats) -> tuple[Scan, ZScoreState]:
        from iiot_platform.analytics import zscore_kernel as kernel  # noqa: PLC0415 - see there

        parameters, floor = self.parameters, Floor.of(self.parameters)
        past = floats_of(state.window)
        kept = np.zeros(len(past) + len(values) + kernel.LANES)
        kept[: len(past)] = past
        known, reference = state.reference is not None, state.reference or (0.0, 0.0)
        before = kernel.Memory(0, len(past), state.streak, known, *reference, state.off_reference)
        settings = kernel.Settings(
            parameters.window, parameters.threshold, *floor, parameters.relearn_after
        )
        out = Scan.empty(len(values))
        after = kernel.scan(np.ascontiguousarray(values), kept, before, settings, out)
        reference = (after.reference_mean, after.reference_std)
        return out, msgspec.structs.replace(
            state,
            window=bytes_of(kept[after.start : after.stop]),
            streak=after.streak,
            reference=reference if after.has_reference else None,
            off_reference=after.off_reference,
        )
