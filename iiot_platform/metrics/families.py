"""Declared metrics with values, as the Prometheus client takes them."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)

from iiot_platform.metrics.metric import Metric

SECONDS_BOUNDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)


@dataclass
class Distribution:
    """How often something took how long.

    Attributes:
        counts: by upper bound (inclusive), the last one without a bound.
        total: sum of all values.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS_BOUNDS) + 1))
    total: float = 0.0

    def add(self, value: float) -> None:
        """Count one more."""
        self.counts[bisect_left(SECONDS_BOUNDS, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound and how many lay at or below it."""
        bounds = (*map(str, SECONDS_BOUNDS), "+Inf")
        return list(zip(bounds, map(float, accumulate(self.counts)), strict=True))


class Families:
    """The families of some declared metrics, each there although it may have no value."""

    def __init__(self, declared: Iterable[Metric]) -> None:
        self._families = {metric: _family(metric) for metric in declared}

    def __iter__(self) -> Iterator[Family]:
        return iter(self._families.values())

    def add(self, metric: Metric, value: float, *labels: str) -> None:
        """The value of a metric for some labels, in their declared order."""
        family = self._families[metric]
        suffix = "_total" if metric.kind == "counter" else ""
        family.add_sample(family.name + suffix, _labelled(metric, labels), value)

    def add_distribution(self, metric: Metric, found: Distribution, *labels: str) -> None:
        """The distribution of a histogram for some labels."""
        family = self._families[metric]
        if not isinstance(family, HistogramMetricFamily):
            raise TypeError(f"{metric.name} is a {metric.kind}")
        family.add_metric(labels, buckets=found.buckets(), sum_value=found.total)


def _labelled(metric: Metric, labels: Sequence[str]) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))


def _family(metric: Metric) -> Family:
    make = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }[metric.kind]
    family: Family = make(metric.name, metric.description, labels=metric.labels)
    return family
