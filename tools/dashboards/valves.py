"""The dashboard of air valves: travel and command times of each operation, with limits."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders

from iiot_platform.core import schema
from tools.dashboards import boards, panels
from tools.dashboards.influxql import Source
from tools.dashboards.panels import FULL, HALF, Tested
from tools.dashboards.signals import NEWEST

VALVES: Final = Source(
    schema.VALVE_ANOMALIES,
    {
        "line_name": "line",
        "machine_name": "machine",
        "sensor_name": "valve",
        "operation_type": "operation",
    },
)
_TIME: Final = Tested("value", shown="duration", unit="ms")


def valves() -> builders.Dashboard:
    """The dashboard of one machine's valves, a row each, a panel for each operation."""
    found = schema.VALVE_ANOMALIES
    made = boards.board("valves", found.title, found.description)
    made = boards.with_variables(made, VALVES, many=["sensor_name", "operation_type"])
    made = boards.with_events(made)
    name = VALVES.name
    return (
        made.link(boards.asset_link(found))
        .annotation(panels.shifts(VALVES))
        .with_row(boards.row("$machine / $valve", "valve"))
        .with_panel(
            panels.ratios("Anomaly ratio per operation", VALVES, [_TIME], by=["operation_type"])
            .height(7)
            .span(HALF)
        )
        .with_panel(
            panels.bars(
                panels.plotted(
                    "Anomalies per operation",
                    VALVES,
                    {"anomalies": f"sum({name('anomaly')})"},
                    by=["operation_type"],
                )
            )
            .height(7)
            .span(HALF)
        )
        .with_panel(
            panels.tested("$operation", VALVES, _TIME)
            .height(8)
            .span(HALF)
            .repeat("operation")
            .repeat_direction("h")
            .max_per_row(2)
        )
        .with_row(boards.row("Rows and runs"))
        .with_panel(
            panels.newest("Newest row of each operation", VALVES, NEWEST).height(8).span(FULL)
        )
        .with_panel(panels.anomalies(VALVES, _TIME).height(8).span(FULL))
    )
