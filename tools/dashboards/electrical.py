"""The dashboard of electrical devices: cycles with limits per phase, and the readings."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import timeseries

from iiot_platform.core import schema
from tools.dashboards import boards, panels
from tools.dashboards.influxql import Source
from tools.dashboards.panels import FULL, HALF, THIRD, Tested

_VARIABLES: Final = {"line_name": "line", "machine_name": "machine", "device_name": "device"}
CYCLES: Final = Source(schema.ELECTRICAL_CYCLES, _VARIABLES)
READINGS: Final = Source(schema.ELECTRICAL_READINGS, _VARIABLES)
_INTEGRALS: Final = [
    Tested(f"el_current_integral_ph{n}", f"el_current_integral_ph{n}_", f"integral {n}")
    for n in schema.PHASES
]
_INRUSH: Final = [
    Tested(f"el_inrush_current_ph{n}", f"el_inrush_current_ph{n}_", f"inrush {n}", "amp")
    for n in schema.PHASES
]
_READ: Final = {
    "Currents": ("amp", [f"CurrentL{n}" for n in schema.PHASES]),
    "Active power": ("short", ["ActPowerTot", *(f"ActPowerL{n}" for n in schema.PHASES)]),
    "Total powers": ("short", ["ActPowerTot", "ReactPowerTot", "ApparPowerTot"]),
    "Voltages": ("volt", [f"VoltL{n}" for n in schema.PHASES]),
    "Power factor": ("short", ["PowerFact", *(f"PowFactL{n}" for n in schema.PHASES)]),
    "Current distortion (THD)": ("short", [f"CurrentL{n}_THD" for n in schema.PHASES]),
}


def electrical() -> builders.Dashboard:
    """The dashboard of one machine's electrical devices, rows for each."""
    made = boards.board("electrical", "Electrical", schema.ELECTRICAL_CYCLES.description)
    made = (
        boards.with_events(boards.with_variables(made, READINGS, many=["device_name"]))
        .link(boards.asset_link(schema.ELECTRICAL_CYCLES))
        .link(boards.asset_link(schema.ELECTRICAL_READINGS))
        .with_row(boards.row("$machine / $device: cycles", "device"))
    )
    for quantity in (*_INTEGRALS, *_INRUSH):
        column = CYCLES.table.column(quantity.column)
        title = f"{column.description.capitalize()} ({column.unit})"
        made = made.with_panel(
            panels.cycles(panels.tested(title, CYCLES, quantity)).height(8).span(THIRD)
        )
    made = (
        made.with_panel(
            panels.cycles(panels.ratios("Anomaly ratio: integral", CYCLES, _INTEGRALS))
            .height(7)
            .span(HALF)
        )
        .with_panel(
            panels.cycles(panels.ratios("Anomaly ratio: inrush current", CYCLES, _INRUSH))
            .height(7)
            .span(HALF)
        )
        .with_panel(
            _measures(
                "Asymmetry and unbalance",
                {"asymmetry": "el_current_assymetry", "unbalance": "el_current_unbalance"},
            )
            .unit("percent")
            .min(0)
            .height(7)
            .span(THIRD)
        )
        .with_panel(
            _measures(
                "Maximum at the start",
                {f"phase {n}": f"el_inrush_first_ph{n}" for n in schema.PHASES},
            )
            .unit("amp")
            .height(7)
            .span(THIRD)
        )
        .with_panel(
            _measures("Length and longest gap", {"cycle": "cycle_s", "gap": "max_gap_s"})
            .unit("s")
            .min(0)
            .height(7)
            .span(THIRD)
        )
        .with_row(boards.row("$machine / $device: readings", "device"))
    )
    for title, (unit, columns) in _READ.items():
        expressions = {column: f"mean({READINGS.name(column)})" for column in columns}
        made = made.with_panel(
            panels.plotted(title, READINGS, expressions).unit(unit).height(7).span(HALF)
        )
    shown = {
        "samples": "samples",
        "coverage": "coverage",
        "status": "status",
        "settings": "config_version",
    }
    return made.with_row(boards.row("Rows and runs")).with_panel(
        panels.newest("Newest cycle of each device", CYCLES, shown).height(8).span(FULL)
    )


def _measures(title: str, columns: dict[str, str]) -> timeseries.Panel:
    expressions = {shown: f"mean({CYCLES.name(column)})" for shown, column in columns.items()}
    return panels.cycles(panels.plotted(title, CYCLES, expressions))
