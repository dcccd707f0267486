"""The two-sided tabular CUSUM against a frozen reference (Page 1954; Montgomery, ch. 9)."""

import math
from dataclasses import dataclass

from iiot_platform.analytics.charts import Chart, ChartState, Memory, Recursion


class CusumState(ChartState, frozen=True, tag="cusum"):
    """What influences later rows of a CUSUM; its memory is (C+, C-)."""


@dataclass(frozen=True)
class Cusum(Chart[CusumState]):
    """C+ = max(0, C+ + z - k), C- = max(0, C- - z - k); an anomaly where one exceeds h.

    z is clipped to +-`cusum_clip` before it is added, so that one glitch can not alarm. A sum is
    not reset by an alarm, and is held at 2h: it stays out while the level does and is back within
    h / k normal values. The statistic is the larger sum, negative for C-.
    """

    @property
    def limit(self) -> float:
        """The decision interval h."""
        return self.parameters.cusum_h

    def fresh(self, size: int) -> CusumState:
        """The state before the first value, for a window of `size`."""
        return CusumState(size=size, memory=(0.0, 0.0))

    def recursion(self) -> Recursion:
        """The sums behind one more value, and the larger."""
        k, ceiling = self.parameters.cusum_k, 2 * self.parameters.cusum_h
        clip = math.inf if self.parameters.cusum_clip is None else self.parameters.cusum_clip

        def step(memory: Memory, z: float) -> tuple[Memory, float]:
            z = clip if z > clip else max(z, -clip)
            up, down = memory[0] + z - k, memory[1] - z - k
            up = min(up, ceiling) if up > 0.0 else 0.0
            down = min(down, ceiling) if down > 0.0 else 0.0
            return (up, down), up if up >= down else -down

        return step
