"""What leads from a point or a row to Dagster: its run, and the partition of its hour.

Grafana writes times in links in the browser's zone, and partitions are named in UTC: two
transformations add the hour's key to the data, for links to take it from there. A link names a
line as its data does, and so do the keys of its assets (`core.pages.asset_prefix`).
"""

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from iiot_platform.core import schema
from iiot_platform.core.boards import DAGSTER_URL
from iiot_platform.core.clock import PARTITION_KEY_FORMAT

DAGSTER: Final = f"${{{DAGSTER_URL}:raw}}"
"""Address of the Dagster UI."""
HOUR: Final = "hour"
"""The column with the key of a point's partition."""
CHOSEN_LINE: Final = "${line:percentencode}"
TIME: Final = "Time"
"""What Grafana calls the time of a row."""
_MOMENT: Final = {"%Y": "YYYY", "%m": "MM", "%d": "DD", "%H": "HH", "%M": "00"}
"""Grafana's words for those of a partition's key, which is that of the start of an hour."""
_PARTITION_TITLE: Final = "Open the hour's partition in Dagster"


def run_link(run: str) -> dict[str, object]:
    """A link to a run in Dagster; `run` is where Grafana finds its id."""
    return {
        "title": "Open the run in Dagster",
        "url": f"{DAGSTER}/runs/{run}",
        "targetBlank": True,
    }


def partition_link(shown: schema.Table, hour: str, *, line: str = CHOSEN_LINE) -> dict[str, object]:
    """A link to an hour of a table in Dagster; `hour` and `line` are where Grafana finds them."""
    return {"title": _PARTITION_TITLE, "url": _url(shown, hour, line), "targetBlank": True}


def asset_link(shown: schema.Table, line: str) -> Builder[models.DashboardLink]:
    """A link to the asset of a table; `line` is where Grafana finds the line's name."""
    return _link(
        "Open its asset in Dagster", f"{DAGSTER}/assets/{line}/{shown.name}?view=partitions"
    )


def with_origin(
    panel: timeseries.Panel,
    shown: schema.Table,
    *,
    line: str = CHOSEN_LINE,
    by: Sequence[str] = (),
    run: str | None = None,
) -> timeseries.Panel:
    """A panel of which every point leads to its hour's partition, and to its run.

    Args:
        panel: its only query answers as a table.
        shown: the table whose rows it shows.
        line: where Grafana finds the line's name.
        by: the tags that its lines are told apart by; they become labels.
        run: the column with the run's id; None where points are of no single run.
    """
    for step in hours():
        panel = panel.with_transformation(step)
    if by:
        panel = panel.with_transformation(
            models.DataTransformerConfig(
                "partitionByValues",
                options={"fields": list(by), "naming": {"asLabels": True}, "keepFields": False},
            )
        )
    hour = f"${{__data.fields.{HOUR}:percentencode}}"
    found = [_link(_PARTITION_TITLE, _url(shown, hour, line))]
    if run is not None:
        to_run = run_link(f"${{__data.fields.{run}}}")
        found.insert(0, _link(str(to_run["title"]), str(to_run["url"])))
    return panel.data_links(found)


def with_hours(made: table.Panel, shown: schema.Table, *, line: str = CHOSEN_LINE) -> table.Panel:
    """A table with the hour of each row, which leads to the partition of the table's asset.

    Args:
        made: the panel; its query gives the time of each row.
        shown: the table whose rows it shows.
        line: where Grafana finds the line's name.
    """
    for step in hours():
        made = made.with_transformation(step)
    link = partition_link(shown, "${__value.raw:percentencode}", line=line)
    return made.override_by_name(HOUR, [models.DynamicConfigValue("links", [link])])


def hours(query: str | None = None) -> list[models.DataTransformerConfig]:
    """Steps that add the key of each row's partition, to the data of one query or of all."""
    only = None if query is None else models.MatcherConfig("byRefId", query)
    shown = PARTITION_KEY_FORMAT
    for word, other in _MOMENT.items():
        shown = shown.replace(word, other)
    copied = {
        "mode": "binary",
        "alias": HOUR,
        "binary": {
            "left": {"matcher": {"id": "byName", "options": TIME}},
            "operator": "+",
            "right": {"fixed": "0"},
        },
        "replaceFields": False,
    }
    written = {"destinationType": "string", "dateFormat": shown, "timezone": "utc"}
    conversions = [
        {"targetField": HOUR, "destinationType": "time"},
        {"targetField": HOUR, **written},
    ]
    return [
        models.DataTransformerConfig("calculateField", filter_val=only, options=copied),
        models.DataTransformerConfig(
            "convertFieldType", filter_val=only, options={"conversions": conversions}
        ),
    ]


def _link(title: str, url: str) -> Builder[models.DashboardLink]:
    return (
        builders.DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .url(url)
        .target_blank(True)  # noqa: FBT003  # the SDK's signature
    )


def _url(shown: schema.Table, hour: str, line: str) -> str:
    return f"{DAGSTER}/assets/{line}/{shown.name}?view=partitions&partition={hour}"
