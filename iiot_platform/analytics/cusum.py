"""The two-sided tabular CUSUM against a frozen reference (Page 1954; Montgomery, ch. 9)."""

from dataclasses import dataclass

from iiot_platform.analytics.charts import Chart, ChartState, Memory


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

    def step(self, memory: Memory, z: float) -> tuple[Memory, float]:
        """The sums behind one more value, and the larger."""
        k, ceiling, clip = (
            self.parameters.cusum_k,
            2 * self.parameters.cusum_h,
            self.parameters.cusum_clip,
        )
        if clip is not None:
            z = min(max(z, -clip), clip)
        up = min(max(0.0, memory[0] + z - k), ceiling)
        down = min(max(0.0, memory[1] - z - k), ceiling)
        return (up, down), up if up >= down else -down
