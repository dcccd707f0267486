"""The dashboard of signals: value, limits, anomalies, level, and the runs behind them."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders

from iiot_platform.core import schema
from tools.dashboards import boards, panels
from tools.dashboards.influxql import Source
from tools.dashboards.panels import FULL, HALF, Tested

SIGNALS: Final = Source(
    schema.SIGNAL_ANOMALIES,
    {"line_name": "line", "machine_name": "machine", "sensor_name": "sensor"},
)
_VALUE: Final = Tested("value")
NEWEST: Final = {
    "value": "value",
    "status": "status",
    "anomaly": "anomaly",
    "z": "z_score",
    "off reference": "off_reference",
    "settings": "config_version",
}


def signals() -> builders.Dashboard:
    """The dashboard of one machine's signals, a row each."""
    made = boards.board("signals", schema.SIGNALS.title, schema.SIGNAL_ANOMALIES.description)
    made = boards.with_variables(made, SIGNALS, many=["sensor_name"])
    made = boards.with_events(made)
    return (
        made.link(boards.asset_link(schema.SIGNAL_ANOMALIES))
        .annotation(panels.shifts(SIGNALS))
        .with_row(boards.row("$machine / $sensor", "sensor"))
        .with_panel(
            panels.tested("Value, limits and anomalies", SIGNALS, _VALUE).height(10).span(FULL)
        )
        .with_panel(panels.ratios("Anomaly ratio", SIGNALS, [_VALUE]).height(6).span(HALF))
        .with_panel(panels.levels(SIGNALS).height(6).span(HALF))
        .with_row(boards.row("Rows and runs"))
        .with_panel(
            panels.newest("Newest row of each sensor", SIGNALS, NEWEST).height(8).span(FULL)
        )
        .with_panel(panels.anomalies(SIGNALS, _VALUE).height(10).span(FULL))
    )
