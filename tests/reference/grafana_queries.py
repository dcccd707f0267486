"""The queries of a dashboard, with macros and variables filled in as Grafana does."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_FILLED = re.compile(r"\$\{(?P<variable>\w+):regex\}|\$(?P<macro>timeFilter|__interval)\b")


class Query(NamedTuple):
    where: str
    text: str


def data_panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels that show data; rows and texts are none."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            assert not panel.get("panels"), "Grafana drops the panels of a row that is open"
        elif panel["type"] != "text":
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
    """The text as it is sent; a variable of several values becomes an alternative of them.

    Each variable has to say `:regex`: how Grafana escapes one that says nothing depends on its
    data source, and that of InfluxDB leaves a single name as it is that begins with a digit.
    """
    assert "$" not in re.sub(r"\$/", "", _FILLED.sub("", text)), f"not filled in: {text}"
    macros = {
        "timeFilter": f"time >= {start_ms}ms and time <= {end_ms}ms",
        "__interval": interval,
    }

    def value(found: re.Match[str]) -> str:
        return macros[found["macro"]] if found["macro"] else _regex(variables[found["variable"]])

    return _FILLED.sub(value, text)


def _regex(value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        return re.sub(r"[\\^$*+?.()|\[\]{}/]", lambda found: f"\\{found[0]}", value)
    found = [_regex(one) for one in value]
    return found[0] if len(found) == 1 else f"({'|'.join(found)})"
