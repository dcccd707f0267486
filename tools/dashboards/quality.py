"""The dashboard of data quality: what was set aside or came late, and how late readings are."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.common import GraphDrawStyle

from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_HOUR, MS_PER_S
from tools.dashboards import boards, links, panels
from tools.dashboards.influxql import Source
from tools.dashboards.panels import FULL, HALF, THIRD
from tools.dashboards.plant import SUMMARY

CYCLES: Final = Source(schema.ELECTRICAL_CYCLES, {"line_name": "line"})
QUALITY: Final = Source(schema.DATA_QUALITY, {"line_name": "line", "reason": "reason"})
_LINE: Final = schema.LINE.name


def quality() -> builders.Dashboard:
    """The dashboard of data quality of all lines."""
    found = schema.DATA_QUALITY
    made = boards.board("quality", found.title, found.description)
    # lines from their summary: a line without trouble has no row of data quality
    made = boards.with_variables(made, SUMMARY, many=[_LINE])
    made = boards.with_variables(made, QUALITY, many=["reason"], skip=[_LINE])
    made = boards.with_events(made)
    counts = {"count": f"sum({QUALITY.name('count')})"}
    run = {panels.RUN: f"last({QUALITY.name('run_id')})", "count": QUALITY.name("count")}
    run["settings"] = QUALITY.name("config_version")
    for title, told_apart in (
        ("By line and reason", [_LINE, "reason"]),
        ("By line", [_LINE]),
    ):
        made = made.with_panel(
            panels.bars(
                panels.plotted(title, QUALITY, counts, by=told_apart, description=found.description)
            )
            .interval("10s")
            .height(9)
            .span(HALF)
        )
    summary = (
        ("Readings per interval of 10 s", "readings", "mean", "short"),
        ("Largest lateness", "lateness_max_s", "max", "s"),
        ("Known share of the states' time", "known_share", "mean", "percentunit"),
    )
    for title, column, how, unit in summary:
        made = made.with_panel(
            panels.plotted(
                title,
                SUMMARY,
                {column: f"{how}({SUMMARY.name(column)})"},
                by=[_LINE],
                description=SUMMARY.table.column(column).description.capitalize(),
            )
            .interval("10s")
            .unit(unit)
            .height(8)
            .span(THIRD)
        )
    made = made.with_panel(
        panels.plotted(
            "Gaps: time without data",
            SUMMARY,
            {"missing_s": f"sum({SUMMARY.name('missing_s')})"},
            by=[_LINE],
            description=SUMMARY.table.column("missing_s").description.capitalize(),
        )
        .draw_style(GraphDrawStyle.BARS)
        .interval("10s")
        .unit("s")
        .height(8)
        .span(HALF)
    )
    made = made.with_panel(
        panels.share(
            panels.plotted(
                "Coverage of hours",
                SUMMARY,
                {"coverage": f"1 - sum({SUMMARY.name('missing_s')}) / {MS_PER_HOUR // MS_PER_S}"},
                by=[_LINE],
                every="1h",
                of_one_run=False,
                description="Share of an hour that lies in no gap. A gap counts in the hour in "
                "which its source was back; the live page and Client.coverage place it where it "
                "was.",
            )
        )
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(30)
        .time_from("24h")
        .height(8)
        .span(HALF)
    )
    made = made.with_panel(
        panels.bars(
            panels.plotted(
                "Late rows",
                QUALITY,
                counts,
                by=[_LINE],
                description=found.column("count").description.capitalize(),
                where=[f"{QUALITY.name('reason')} = '{schema.LATE}'"],
                without=["reason"],
            )
        )
        .interval("10s")
        .height(8)
        .span(HALF)
    )
    made = made.with_panel(
        panels.cycles(
            panels.plotted(
                "Coverage of machine cycles",
                CYCLES,
                {"coverage": f"min({CYCLES.name('coverage')})"},
                by=[_LINE, "device_name"],
                description=CYCLES.table.column("coverage").description.capitalize(),
            )
        )
        .unit("percentunit")
        .height(8)
        .span(HALF)
    )
    tags = [_LINE, "reason"]
    totals = QUALITY.select(counts, every=None, by=tags)
    newest = QUALITY.select(run, every=None, by=tags)
    asset = {
        "title": "Open the table in Dagster",
        "url": links.DAGSTER + "/assets/${__value.raw:percentencode}/" + found.name,
        "targetBlank": True,
    }
    link = panels.properties({"links": [asset]})
    return (
        made.with_panel(
            panels.listed("Sum in the chosen time", totals, tags)
            .override_by_name(_LINE, link)
            .height(9)
            .span(HALF)
        )
        .with_panel(
            links.with_hours(
                panels.listed("Newest interval of each reason and its run", newest, tags),
                found,
                line=f"${{__data.fields.{_LINE}:percentencode}}",
            )
            .override_by_name(_LINE, link)
            .height(9)
            .span(HALF)
        )
        .with_panel(panels.happened(boards.EVENTS).height(8).span(FULL))
    )
