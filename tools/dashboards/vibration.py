"""The dashboard of vibration: the total and each axis with limits, ratios and temperature."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders

from iiot_platform.core import schema
from tools.dashboards import boards, panels
from tools.dashboards.influxql import Source
from tools.dashboards.panels import FULL, HALF, THIRD, Tested
from tools.dashboards.signals import NEWEST, SIGNALS

VIBRATION: Final = Source(schema.VIBRATION_ANOMALIES, SIGNALS.variables)
_TOTAL: Final = Tested("vib_accel_rms_total", shown="total")
_AXES: Final = [
    Tested(f"vib_accel_rms_{axis}", f"vib_accel_rms_{axis}_", shown=axis)
    for axis in schema.VIBRATION_AXES
]


def vibration() -> builders.Dashboard:
    """The dashboard of one machine's vibration sensors, a row each."""
    found = schema.VIBRATION_ANOMALIES
    made = boards.board("vibration", found.title, found.description)
    made = (
        boards.with_events(boards.with_variables(made, VIBRATION, many=["sensor_name"]))
        .link(boards.asset_link(found))
        .annotation(panels.shifts(VIBRATION))
        .with_row(boards.row("$machine / $sensor", "sensor"))
        .with_panel(
            panels.tested("Total: RMS acceleration and limits", VIBRATION, _TOTAL)
            .height(9)
            .span(FULL)
        )
    )
    for axis in _AXES:
        made = made.with_panel(
            panels.tested(f"{axis.shown} axis", VIBRATION, axis).height(8).span(THIRD)
        )
    temperature = found.column("sensor_temperature")
    return (
        made.with_panel(
            panels.ratios("Anomaly ratio", VIBRATION, [_TOTAL, *_AXES]).height(7).span(THIRD)
        )
        .with_panel(panels.levels(VIBRATION).height(7).span(THIRD))
        .with_panel(
            panels.plotted(
                "Sensor temperature",
                VIBRATION,
                {"temperature": f"mean({VIBRATION.name(temperature.name)})"},
                description=f"{temperature.description.capitalize()}, {temperature.unit}",
            )
            .height(7)
            .span(THIRD)
        )
        .with_row(boards.row("Rows and runs"))
        .with_panel(
            panels.newest("Newest row of each sensor", VIBRATION, NEWEST | {"value": _TOTAL.column})
            .height(8)
            .span(HALF)
        )
        .with_panel(panels.anomalies(VIBRATION, _TOTAL).height(8).span(HALF))
    )
