"""PromQL for dashboards, written from declared metrics so that no name can be misspelt."""

from typing import Final

from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.common import DataSourceRef

from iiot_platform.metrics.metric import Metric

DATASOURCE_UID: Final = "prometheus"
DATASOURCE: Final = DataSourceRef(type_val="prometheus", uid=DATASOURCE_UID)
LINE: Final = "line"


def series(metric: Metric, *, suffix: str = "", window: str = "", **labels: str) -> str:
    """The series of a metric, of the chosen lines where it has lines.

    Args:
        metric: the metric.
        suffix: `_bucket`, `_count` or `_sum` of a histogram.
        window: for a range of it, such as `5m`.
        labels: what its labels must be.

    Raises:
        KeyError: the metric has no such label.
        ValueError: a histogram has no series of its own, other metrics have no parts.
    """
    if (metric.kind == "histogram") != bool(suffix):
        raise ValueError(f"{metric.name} is a {metric.kind}; got suffix '{suffix}'")
    conditions = [f'{_known(metric, name)}="{value}"' for name, value in labels.items()]
    if LINE in metric.labels:
        conditions.append(f'{LINE}=~"${LINE}"')
    chosen = f"{{{','.join(conditions)}}}" if conditions else ""
    return f"{metric.name}{suffix}{chosen}{f'[{window}]' if window else ''}"


def total(metric: Metric, *by: str, **labels: str) -> str:
    """The sum of a gauge, by some of its labels."""
    return f"{_sum(metric, by)} ({series(metric, **labels)})"


def rate(metric: Metric, *by: str, suffix: str = "", **labels: str) -> str:
    """How much a counter rises per second, by some of its labels."""
    found = series(metric, suffix=suffix, window="$__rate_interval", **labels)
    return f"{_sum(metric, by)} (rate({found}))"


def rise(metric: Metric, *by: str, **labels: str) -> str:
    """How much a counter has risen since the point before, by some of its labels."""
    found = series(metric, window="$__rate_interval", **labels)
    return f"{_sum(metric, by)} (increase({found}))"


def quantile(share: float, metric: Metric, *by: str, **labels: str) -> str:
    """A quantile of a histogram, by some of its labels."""
    found = series(metric, suffix="_bucket", window="$__rate_interval", **labels)
    groups = ", ".join((*(_known(metric, name) for name in by), "le"))
    return f"histogram_quantile({share}, sum by ({groups}) (rate({found})))"


def target(expression: str, legend: str, ref_id: str) -> Dataquery:
    """An expression as a panel's query; `{{label}}` in the legend is a label's value."""
    query = Dataquery().datasource(DATASOURCE).expr(expression).legend_format(legend)
    return query.ref_id(ref_id).range()


def _sum(metric: Metric, by: tuple[str, ...]) -> str:
    return f"sum by ({', '.join(_known(metric, name) for name in by)})" if by else "sum"


def _known(metric: Metric, label: str) -> str:
    if label not in metric.labels:
        raise KeyError(f"{metric.name} has no label '{label}'")
    return label
