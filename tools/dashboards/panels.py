"""The panels of dashboards: lines, bars, tables, and quantities that are tested."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import common, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)

from iiot_platform.core import schema
from tools.dashboards import links
from tools.dashboards.influxql import DATASOURCE, InfluxQuery, Source

GAP_MS: Final = 60_000
"""A line is broken where a series is silent for longer."""
FULL, HALF, THIRD = 24, 12, 8
UPPER, LOWER, ANOMALY, RUN = "upper limit", "lower limit", "anomaly", "run"
SHIFT, OFF_REFERENCE = "level shift", "off reference"
_CYCLE_GAP_MS: Final = 900_000
_NEWEST_ANOMALIES: Final = 200


@dataclass(frozen=True)
class Tested:
    """A quantity that a detector tests.

    Attributes:
        column: its column.
        prefix: what the names of its verdict begin with; empty where a table tests one quantity.
        shown: what it is called in a panel.
        unit: Grafana's name of its unit.
    """

    column: str
    prefix: str = ""
    shown: str = "value"
    unit: str = "short"


def lines(title: str, description: str = "") -> timeseries.Panel:
    """A panel of lines, broken where a series is silent."""
    return (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .interval("1s")
        .line_width(1)
        .fill_opacity(0)
        .show_points(VisibilityMode.AUTO)
        # of the gaps in the data the short ones are bridged; to insert those that are longer
        # would break every line of a range whose interval is
        .span_nulls(GAP_MS)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)  # noqa: FBT003  # the SDK's signature
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )


def plotted(
    title: str,
    source: Source,
    expressions: Mapping[str, str],
    *,
    by: Sequence[str] = (),
    every: str = "$__interval",
    description: str = "",
    where: Iterable[str] = (),
    without: Iterable[str] = (),
    of_one_run: bool = True,
) -> timeseries.Panel:
    """Expressions over time, whose points lead to their run and to their hour's partition.

    Args:
        title: of the panel.
        source: the table.
        expressions: what is plotted, by the name that it is shown under.
        by: makes one line per value of these tags, named after them. Where several lines of the
            plant may be chosen, theirs has to be one of them, for links to know it.
        every: interval that is aggregated over.
        description: of the panel.
        where: further conditions.
        without: tags whose variable does not restrict it.
        of_one_run: whether points lead to a run; of an interval with several it is the last.
    """
    run = {RUN: f"last({source.name('run_id')})"} if of_one_run else {}
    query = source.select({**expressions, **run}, every=every, by=by, where=where, without=without)
    # as a table, so that run and hour stand in the frame that links are made from
    panel = lines(title, description).with_target(InfluxQuery(query, result_format="table"))
    if by:
        name = " ".join(f"${{__field.labels.{tag}}}" for tag in by)
        name += " ${__field.name}" if len(expressions) > 1 else ""
        for shown in expressions:
            # of an override, because the names that Grafana makes of labels win over defaults
            panel = panel.override_by_name(shown, properties({"displayName": name}))
    line = links.CHOSEN_LINE
    if schema.LINE.name in by:
        line = f"${{__field.labels.{schema.LINE.name}:percentencode}}"
    return links.with_origin(panel, source.table, line=line, by=by, run=RUN if of_one_run else None)


def cycles(panel: timeseries.Panel) -> timeseries.Panel:
    """A panel of cycles, which are far apart: points are shown, and a line is broken later."""
    return panel.show_points(VisibilityMode.ALWAYS).span_nulls(_CYCLE_GAP_MS)


def share(panel: timeseries.Panel) -> timeseries.Panel:
    """A panel whose values are shares of one."""
    return panel.unit("percentunit").min(0).max(1)


def bars(panel: timeseries.Panel) -> timeseries.Panel:
    """A panel whose lines are stacked bars of counts."""
    return (
        panel.draw_style(GraphDrawStyle.BARS)
        .fill_opacity(70)
        .decimals(0)
        .min(0)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    )


def tested(title: str, source: Source, quantity: Tested) -> timeseries.Panel:
    """A quantity with its limits, its anomalies as bars, and links to the runs of its points."""
    verdict = _verdict(source, quantity)
    mean = f"mean({verdict['model_avg']})"
    reach = f"mean({verdict['z_score_thresh']}) * mean({verdict['model_std']})"
    learnt = f"{verdict['model_std']} > 0"  # 0 while the detector warms up, floored above it after
    points = source.select(
        {
            quantity.shown: f"mean({source.name(quantity.column)})",
            ANOMALY: f"max({verdict['anomaly']})",
            RUN: f"last({source.name('run_id')})",
        }
    )
    limits = source.select({UPPER: f"{mean} + {reach}", LOWER: f"{mean} - {reach}"}, where=[learnt])
    partition = links.partition_link(source.table, f"${{__data.fields.{links.HOUR}:percentencode}}")
    run = {"links": [links.run_link("${__data.fields." + RUN + "}"), partition]}
    panel = lines(
        title,
        "Limits: mean of the window ± threshold x standard deviation. "
        "Red: an anomaly in the interval. A point links to its run and to its hour's partition.",
    )
    for step in links.hours("A"):
        panel = panel.with_transformation(step)
    return (
        panel.unit(quantity.unit)
        # as a table, so that the run stands in the frame that its link is made from
        .with_target(InfluxQuery(points, ref_id="A", result_format="table"))
        .with_target(InfluxQuery(limits, ref_id="B"))
        .override_by_name(
            quantity.shown, properties({"color": fixed("blue"), "custom.lineWidth": 2} | run)
        )
        .override_by_name(
            UPPER,
            properties(
                {
                    "color": fixed("green"),
                    "custom.fillBelowTo": LOWER,
                    "custom.fillOpacity": 12,
                    "custom.lineWidth": 0,
                    "custom.showPoints": VisibilityMode.NEVER,
                }
            ),
        )
        .override_by_name(
            LOWER,
            properties(
                {
                    "color": fixed("green"),
                    "custom.lineWidth": 0,
                    "custom.showPoints": VisibilityMode.NEVER,
                }
            ),
        )
        .override_by_name(ANOMALY, properties(flag_bars("red") | run))
    )


def ratios(
    title: str, source: Source, quantities: Iterable[Tested], *, by: Sequence[str] = ()
) -> timeseries.Panel:
    """The anomaly ratio of quantities."""
    found = {q.shown: _verdict(source, q)["anomaly_ratio"] for q in quantities}
    description = source.table.column(next(iter(found.values())).strip('"')).description
    expressions = {shown: f"max({name})" for shown, name in found.items()}
    return share(plotted(title, source, expressions, by=by, description=description.capitalize()))


def levels(source: Source) -> timeseries.Panel:
    """Level shifts, and whether a series has left its reference."""
    name = source.name
    shown = {SHIFT: f"max({name('shift_event')})", OFF_REFERENCE: f"max({name('off_reference')})"}
    described = "Off reference stays 1 until the new level is acknowledged in the plant file."
    return (
        plotted("Level shifts", source, shown, description=described)
        .min(0)
        .max(1)
        .decimals(0)
        .line_interpolation(LineInterpolation.STEP_AFTER)
        .override_by_name(SHIFT, properties(flag_bars("purple")))
        .override_by_name(OFF_REFERENCE, properties({"color": fixed("orange")}))
    )


def shifts(source: Source) -> builders.AnnotationQuery:
    """A mark wherever a level was learnt anew."""
    name = source.name
    device = next(tag for tag in reversed(source.table.names("tag")) if tag.endswith("_name"))
    query = source.annotation(
        {"title": name(device), "text": name("status"), "tags": name(device)},
        where=[f"{name('shift_event')} = 1"],
    )
    return (
        builders.AnnotationQuery()
        .name("Level shifts")
        .datasource(DATASOURCE)
        .enable(True)  # noqa: FBT003  # the SDK's signature
        .icon_color("purple")
        .target(query)
    )


def newest(title: str, source: Source, shown: Mapping[str, str]) -> table.Panel:
    """The newest row of each series and the run that computed it."""
    columns = {RUN: f"last({source.name('run_id')})"}
    columns |= {label: source.name(column) for label, column in shown.items()}
    tags = [tag for tag in source.table.names("tag") if tag != schema.LINE.name]
    query = source.select(columns, every=None, by=tags)
    return links.with_hours(listed(title, query, tags), source.table)


def anomalies(source: Source, quantity: Tested) -> table.Panel:
    """The newest anomalies, each with the run that found it."""
    verdict = _verdict(source, quantity)
    tags = [tag for tag in source.table.names("tag") if tag != schema.LINE.name]
    columns = {tag: source.name(tag) for tag in tags}
    columns |= {
        quantity.shown: source.name(quantity.column),
        "mean": verdict["model_avg"],
        "z": verdict["z_score"],
        "status": source.name("status"),
        RUN: source.name("run_id"),
        "settings": source.name("config_version"),
    }
    query = source.select(
        columns, where=[f"{verdict['anomaly']} = 1"], every=None, newest=_NEWEST_ANOMALIES
    )
    made = listed(f"Newest anomalies (at most {_NEWEST_ANOMALIES})", query)
    return links.with_hours(made, source.table)


def listed(title: str, query: str, by: Iterable[str] = ()) -> table.Panel:
    """A table whose runs, where it has some, lead to Dagster.

    Args:
        title: of the panel.
        query: what is shown.
        by: the tags that it tells apart, in the order of their columns.
    """
    made = (
        table.Panel()
        .title(title)
        .datasource(DATASOURCE)
        .with_target(InfluxQuery(query, result_format="table"))
    )
    order = {column: place for place, column in enumerate([links.TIME, *by])}
    if len(order) > 2:  # noqa: PLR2004  # two tags and the time
        # Grafana has the tags in an order that is another one at every refresh
        made = made.with_transformation(
            models.DataTransformerConfig("organize", options={"indexByName": order})
        )
    if f'AS "{RUN}"' not in query:
        return made
    return made.override_by_name(RUN, properties({"links": [links.run_link("${__value.raw}")]}))


def happened(source: Source) -> table.Panel:
    """The newest events of the chosen lines, with links to the run and to the hour's partition."""
    name = source.name
    query = source.select(
        {
            "line": name(schema.LINE.name),
            "kind": name("kind"),
            "what": name("text"),
            links.HOUR: name("hour"),
            RUN: name("run_id"),
            "settings": name("config_version"),
        },
        every=None,
        newest=_NEWEST_ANOMALIES,
    )
    partition = links.partition_link(
        schema.READINGS,
        "${__value.raw:percentencode}",
        line="${__data.fields.line:percentencode}",
    )
    return (
        listed("Settings, reruns and gaps: the newest events", query)
        .description(schema.EVENTS.description)
        .override_by_name(links.HOUR, properties({"links": [partition]}))
    )


def flag_bars(color: str) -> dict[str, object]:
    """Full-height bars for a flag of 0 or 1, on an axis of their own that is not shown."""
    return {
        "color": fixed(color),
        "custom.drawStyle": GraphDrawStyle.BARS,
        "custom.fillOpacity": 45,
        "custom.lineWidth": 0,
        "custom.axisPlacement": "hidden",
        "unit": "short",
        "min": 0,
        "max": 1,
    }


def fixed(color: str) -> dict[str, object]:
    """One colour."""
    return {"mode": "fixed", "fixedColor": color}


def properties(values: Mapping[str, object]) -> list[models.DynamicConfigValue]:
    """Properties of an override."""
    return [models.DynamicConfigValue(name, value) for name, value in values.items()]


def _verdict(source: Source, quantity: Tested) -> dict[str, str]:
    """The verdict's columns by their plain names, quoted."""
    plain = [column.name for column in schema.verdict_fields()]
    return {name: source.name(f"{quantity.prefix}{name}") for name in plain}
