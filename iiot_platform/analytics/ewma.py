"""The EWMA control chart against a frozen reference (Roberts 1959; Lucas and Saccucci 1990)."""

import math
from dataclasses import dataclass

from iiot_platform.analytics.charts import Chart, ChartState, Memory, Recursion


class EwmaState(ChartState, frozen=True, tag="ewma"):
    """What influences later rows of an EWMA; its memory is (E, (1 - lambda)^2t)."""


@dataclass(frozen=True)
class Ewma(Chart[EwmaState]):
    """E = lambda·z + (1 - lambda)·E from 0; an anomaly where |E| exceeds threshold·std(E).

    The limit is the exact one of t values since the reference,
    var(E) = lambda / (2 - lambda)·(1 - (1 - lambda)^2t). The statistic is E / std(E).
    """

    def fresh(self, size: int) -> EwmaState:
        """The state before the first value, for a window of `size`."""
        return EwmaState(size=size, memory=(0.0, 1.0))

    def recursion(self) -> Recursion:
        """The average behind one more value, and its distance from 0 in its own std."""
        weight = self.parameters.ewma_lambda
        rest = 1.0 - weight
        forgetting, share = rest * rest, weight / (2.0 - weight)

        def step(memory: Memory, z: float) -> tuple[Memory, float]:
            average = weight * z + rest * memory[0]
            decay = memory[1] * forgetting
            return (average, decay), average / math.sqrt(share * (1.0 - decay))

        return step
