"""The dashboards of the plant as a whole and of one line."""

from typing import Final

from grafana_foundation_sdk.builders import common, gauge, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
)

from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_HOUR, MS_PER_S
from iiot_platform.core.parameters import StateParameters
from tools.dashboards import boards, links, panels
from tools.dashboards.influxql import DATASOURCE, InfluxQuery, Source
from tools.dashboards.panels import FULL, HALF, THIRD, Tested

SUMMARY: Final = Source(schema.LINE_SUMMARY, {"line_name": "line"})
_MACHINES: Final = {"line_name": "line", "machine_name": "machine"}
STATES: Final = Source(schema.STATES, _MACHINES)
SIGNALS: Final = Source(schema.SIGNAL_ANOMALIES, _MACHINES)
VIBRATION: Final = Source(schema.VIBRATION_ANOMALIES, _MACHINES)
VALVES: Final = Source(schema.VALVE_ANOMALIES, _MACHINES)
CYCLES: Final = Source(schema.ELECTRICAL_CYCLES, _MACHINES)
_TESTED: Final = (SIGNALS, VIBRATION, VALVES)
_LINE: Final = schema.LINE.name
_CHANGE: Final = {
    "state": "value",
    "before": "previous_value",
    "before lasted": "duration_s",
    "settings": "config_version",
}
_HOLD_MS: Final = round(StateParameters().hold_s * MS_PER_S)
_STATES_RANGE_MS: Final = 14 * 24 * MS_PER_HOUR
"""The longest range of time in which states can be seen."""
_STATE_COLORS: Final = ("#8e8e8e", "green", "yellow", "orange", "red", "purple", "blue")


def plant() -> builders.Dashboard:
    """The dashboard of all lines."""
    made = boards.board("plant", "Plant overview", schema.LINE_SUMMARY.description)
    made = boards.with_variables(made, SUMMARY, many=[_LINE])
    made = boards.with_events(made)
    name = SUMMARY.name

    def panel(title: str, column: str, how: str) -> timeseries.Panel:
        return panels.plotted(
            title,
            SUMMARY,
            {column: f"{how}({name(column)})"},
            by=[_LINE],
            description=schema.LINE_SUMMARY.column(column).description.capitalize(),
        ).interval("10s")

    return (
        made.with_panel(_freshness().height(6).span(HALF))
        .with_panel(_lateness().height(6).span(HALF))
        .with_panel(_lines_table().height(8).span(FULL))
        .with_panel(
            panels.share(panel("Running share", "running_share", "mean")).height(8).span(HALF)
        )
        .with_panel(panels.bars(panel("Anomalies", "anomalies", "sum")).height(8).span(HALF))
        .with_panel(
            panel("Largest lateness", "lateness_max_s", "max").unit("s").height(8).span(HALF)
        )
        .with_panel(
            panel("Mean lateness", "lateness_mean_s", "mean").unit("s").height(8).span(HALF)
        )
        .with_panel(
            panel("Readings per interval of 10 s", "readings", "mean").min(0).height(7).span(THIRD)
        )
        .with_panel(panel("Series with readings", "devices", "max").min(0).height(7).span(THIRD))
        .with_panel(
            panels.bars(panel("Messages set aside", "quarantined", "sum")).height(7).span(THIRD)
        )
        .with_panel(panels.happened(boards.EVENTS).height(8).span(FULL))
    )


def _freshness() -> stat.Panel:
    """How long ago the newest interval of each line began, one value each."""
    query = SUMMARY.select(
        {"readings": f"last({SUMMARY.name('readings')})"}, every=None, by=[_LINE]
    )
    return (
        stat.Panel()
        .title("Freshness: newest interval of each line")
        .description("How long ago the newest interval of 10 s began.")
        .datasource(DATASOURCE)
        .with_target(InfluxQuery(query, result_format="table"))
        # of the time alone: the names of lines are shown beside it, and would be read as dates
        .override_by_name(links.TIME, panels.properties({"unit": "dateTimeFromNow"}))
        .data_links([links.asset_link(SUMMARY.table, f"${{__data.fields.{_LINE}:percentencode}}")])
        .text_mode(BigValueTextMode.VALUE_AND_NAME)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(
            common.ReduceDataOptions()
            .values(True)  # noqa: FBT003  # the SDK's signature
            .calcs(["lastNotNull"])
            .fields(f"/^{links.TIME}$/")
        )
    )


def _lateness() -> gauge.Panel:
    """The largest lateness in the newest interval of each line."""
    query = SUMMARY.select(
        {"lateness": f"last({SUMMARY.name('lateness_max_s')})"}, every=None, by=[_LINE]
    )
    steps = [
        models.Threshold(None, "green"),
        models.Threshold(10.0, "yellow"),
        models.Threshold(60.0, "red"),
    ]
    return (
        gauge.Panel()
        .title("Largest lateness in the newest interval")
        .description(SUMMARY.table.column("lateness_max_s").description.capitalize())
        .datasource(DATASOURCE)
        .with_target(InfluxQuery(query, alias=f"$tag_{_LINE}"))
        .data_links([links.asset_link(SUMMARY.table, f"${{__field.labels.{_LINE}:percentencode}}")])
        .unit("s")
        .min(0)
        .max(120)
        .thresholds(builders.ThresholdsConfig().steps(steps))
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _lines_table() -> table.Panel:
    """The newest interval of each line; its time says how fresh the line is."""
    name = SUMMARY.name
    run = {panels.RUN: f"last({name('run_id')})"}
    shown = (
        *("readings", "devices", "running_share", "known_share", "state_changes"),
        *("anomalies", "lateness_max_s"),
    )
    query = SUMMARY.select(
        run | {column.replace("_", " "): name(column) for column in shown}, every=None, by=[_LINE]
    )
    to_line = {
        "title": "Open the line",
        "url": "/d/iiot-line?var-line=${__value.raw:percentencode}&${__url_time_range}",
    }
    to_assets = {
        "title": "Open its summary in Dagster",
        "url": links.DAGSTER + "/assets/${__value.raw:percentencode}/" + SUMMARY.table.name,
        "targetBlank": True,
    }
    return (
        links.with_hours(
            panels.listed("Newest interval of each line", query),
            SUMMARY.table,
            line=f"${{__data.fields.{_LINE}:percentencode}}",
        )
        .description("The time says how fresh a line is.")
        .override_by_name(links.TIME, panels.properties({"unit": "dateTimeFromNow"}))
        .override_by_name(_LINE, panels.properties({"links": [to_line, to_assets]}))
        .override_by_name("running share", panels.properties({"unit": "percentunit"}))
        .override_by_name("known share", panels.properties({"unit": "percentunit"}))
        .override_by_name("lateness max s", panels.properties({"unit": "s"}))
    )


def line() -> builders.Dashboard:
    """The dashboard of one line, a row for each of its machines."""
    made = boards.board("line", "Line", "States, signals and anomalies of one line.")
    made = boards.with_events(made)
    made = (
        boards.with_variables(
            made,
            STATES,
            many=["machine_name"],
            also=[source.table for source in (*_TESTED, CYCLES)],
        )
        .link(boards.asset_link(schema.LINE_SUMMARY))
        .link(boards.asset_link(schema.STATES))
        .with_panel(_states("States of $line").height(9).span(FULL))
        .with_row(boards.row("$machine", "machine"))
        .with_panel(
            panels.plotted(
                "Signals",
                SIGNALS,
                {"value": f"mean({SIGNALS.name('value')})"},
                by=["sensor_name"],
                description="The dashboard of signals shows each with its limits.",
            )
            .height(9)
            .span(FULL)
        )
    )
    for source in _TESTED:
        made = made.with_panel(
            panels.bars(
                panels.plotted(
                    f"{source.table.title.removesuffix(' anomalies')}: anomalies per series",
                    source,
                    {"anomalies": f"sum({source.name('anomaly')})"},
                    by=["sensor_name"],
                )
            )
            .height(8)
            .span(THIRD)
        )
    return (
        made.with_panel(
            panels.plotted(
                "Longest state that ended",
                STATES,
                {"ended after": f"max({STATES.name('duration_s')})"},
                by=["state_name"],
                description=schema.STATES.column("duration_s").description.capitalize(),
            )
            .unit("s")
            .height(8)
            .span(HALF)
        )
        .with_panel(
            panels.cycles(
                panels.plotted(
                    "Current integral per cycle",
                    CYCLES,
                    {
                        f"phase {n}": f"mean({CYCLES.name(f'el_current_integral_ph{n}')})"
                        for n in schema.PHASES
                    },
                    by=["device_name"],
                )
            )
            .height(8)
            .span(HALF)
        )
        .with_row(boards.row("Rows and runs"))
        .with_panel(
            panels.newest("Newest change of each state", STATES, _CHANGE).height(8).span(FULL)
        )
        .with_panel(panels.anomalies(SIGNALS, Tested("value")).height(9).span(FULL))
        .with_panel(panels.happened(boards.EVENTS).height(8).span(FULL))
    )


def _states(title: str) -> statetimeline.Panel:
    """One band per state; values are those that the machine sends, coloured by number."""
    query = STATES.select(
        {"state": f"last({STATES.name('value')})"},
        by=["machine_name", "state_name"],
        gaps=False,
    )
    steps = [
        models.Threshold(None if value == 0 else float(value), color)
        for value, color in enumerate(_STATE_COLORS)
    ]
    return (
        statetimeline.Panel()
        .title(title)
        .description("States as the machines send them; each number has a colour.")
        .datasource(DATASOURCE)
        .interval("1s")
        .with_target(InfluxQuery(query, alias="$tag_machine_name $tag_state_name"))
        # to no hour: Grafana adds rows where a state is not known, and takes texts for states
        .data_links([links.asset_link(STATES.table, links.CHOSEN_LINE)])
        .thresholds(builders.ThresholdsConfig().steps(steps))
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .merge_values(True)  # noqa: FBT003  # the SDK's signature
        # a state holds so long; the interval has to stay below it, or none is seen
        .insert_nulls(_HOLD_MS)
        .max_data_points(_STATES_RANGE_MS // _HOLD_MS)
        .row_height(0.8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(False)  # noqa: FBT003  # likewise
        )
    )
