"""The queries of a dashboard, with macros and variables filled in as Grafana does."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Query(NamedTuple):
    where: str
    text: str


def data_panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels that show data; rows are none."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            assert not panel.get("panels"), "Grafana drops the panels of a row that is open"
        else:
            yield panel


def panel_queries(dashboard: Mapping[str, Any]) -> Iterator[Query]:
    """The queries of panels and annotations."""
    for panel in data_panels(dashboard):
        for target in panel["targets"]:
            yield Query(f"panel '{panel['title']}' {target['refId']}", target["query"])
    for annotation in dashboard["annotations"].get("list", []):
        yield Query(f"annotation '{annotation['name']}'", annotation["target"]["query"])


def variable_queries(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, Query]]:
    """The variables that a query fills, in their order, which is that of their chain."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], Query(f"variable '{variable['name']}'", variable["query"])


def interpolated(
    text: str,
    variables: Mapping[str, str | Sequence[str]],
    *,
    start_ms: int,
    end_ms: int,
    interval: str,
) -> str:
    """The text as it is sent; a variable of several values becomes an alternative of them."""
    text = text.replace("$timeFilter", f"time >= {start_ms}ms and time <= {end_ms}ms")
    text = text.replace("$__interval", interval)
    for name, value in variables.items():
        escaped = (
            _escaped(value) if isinstance(value, str) else f"({'|'.join(map(_escaped, value))})"
        )
        text = re.sub(rf"\${name}\b", lambda _, to=escaped: to, text)  # type: ignore[misc]  # a bound default
    assert "$" not in re.sub(r"\$/", "", text), f"not filled in: {text}"
    return text


def _escaped(value: str) -> str:
    return re.sub(r"[\\^$*+?.()|\[\]{}/]", lambda found: f"\\{found[0]}", value)
