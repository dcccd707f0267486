"""The dashboard of signals: value, band, anomalies, level, and the run behind the newest row."""

from collections.abc import Mapping
from typing import Final

from grafana_foundation_sdk.builders import common, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    TooltipDisplayMode,
    VisibilityMode,
)

from iiot_platform.config.settings import Settings
from iiot_platform.core import schema
from tools.dashboards.influxql import DATASOURCE, InfluxQuery, Source

SIGNALS: Final = Source(
    schema.SIGNAL_ANOMALIES,
    {"line_name": "line", "machine_name": "machine", "sensor_name": "sensor"},
)
_GAP_MS: Final = 60_000
"""A line is broken where a series is silent for longer."""
_VALUE, _UPPER, _LOWER, _ANOMALY = "value", "upper limit", "lower limit", "anomaly"
_SHIFT, _OFF_REFERENCE, _RUN = "level shift", "off reference", "run"


def signals() -> builders.Dashboard:
    """The dashboard for one sensor at a time."""
    board = (
        builders.Dashboard(schema.SIGNALS.title)
        .uid("iiot-signals")
        .description(schema.SIGNAL_ANOMALIES.description)
        .tags(["iiot"])
        .readonly()
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("5s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            builders.TextBoxVariable("dagster_url")
            .label("Dagster")
            .description("Address of the Dagster UI, for the links to runs.")
            .default_value(Settings.dagster_url)
            .hide(models.VariableHide.IN_CONTROLS_MENU)
        )
    )
    for tag, variable in SIGNALS.variables.items():
        board = board.with_variable(_variable(tag, variable))
    return (
        board.annotation(_shifts())
        .with_panel(_value_panel().height(11).span(24))
        .with_panel(_ratio_panel().height(7).span(12))
        .with_panel(_level_panel().height(7).span(12))
        .with_panel(_newest_panel().height(8).span(24))
    )


def _variable(tag: str, variable: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(variable)
        .label(variable.capitalize())
        .description(SIGNALS.table.column(tag).description)
        .datasource(DATASOURCE)
        .query(SIGNALS.tag_values(tag))
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NATURAL_ASC)
    )


def _shifts() -> builders.AnnotationQuery:
    """A mark wherever a level was learnt anew."""
    name = SIGNALS.name
    query = SIGNALS.select(
        {"text": name("status")}, where=[f"{name('shift_event')} = 1"], every=None
    )
    return (
        builders.AnnotationQuery()
        .name("Level shifts")
        .datasource(DATASOURCE)
        .enable(True)  # noqa: FBT003  # the SDK's signature
        .icon_color("purple")
        .target(InfluxQuery(query, ref_id="Anno", annotation={"textColumn": "text"}))
    )


def _value_panel() -> timeseries.Panel:
    name = SIGNALS.name
    mean, reach = (
        f"mean({name('model_avg')})",
        (f"mean({name('z_score_thresh')}) * mean({name('model_std')})"),
    )
    learnt = f"{name('model_std')} > 0"  # 0 while the detector warms up, floored above it after
    return (
        _lines("Value, limits and anomalies")
        .description(
            "Limits: mean of the window ± threshold x standard deviation. "
            "Red: an anomaly in the interval."
        )
        .with_target(InfluxQuery(SIGNALS.select({_VALUE: f"mean({name('value')})"}), ref_id="A"))
        .with_target(
            InfluxQuery(
                SIGNALS.select(
                    {_UPPER: f"{mean} + {reach}", _LOWER: f"{mean} - {reach}"}, where=[learnt]
                ),
                ref_id="B",
            )
        )
        .with_target(InfluxQuery(SIGNALS.select({_ANOMALY: f"max({name('anomaly')})"}), ref_id="C"))
        .override_by_name(_VALUE, _properties({"color": _fixed("blue"), "custom.lineWidth": 2}))
        .override_by_name(
            _UPPER,
            _properties(
                {
                    "color": _fixed("green"),
                    "custom.fillBelowTo": _LOWER,
                    "custom.fillOpacity": 12,
                    "custom.lineWidth": 0,
                }
            ),
        )
        .override_by_name(_LOWER, _properties({"color": _fixed("green"), "custom.lineWidth": 0}))
        .override_by_name(_ANOMALY, _properties(_flag_bars("red")))
    )


def _ratio_panel() -> timeseries.Panel:
    ratio = SIGNALS.table.column("anomaly_ratio")
    query = SIGNALS.select({"anomaly ratio": f"max({SIGNALS.name(ratio.name)})"})
    return (
        _lines("Anomaly ratio")
        .description(ratio.description.capitalize())
        .unit("percentunit")
        .min(0)
        .max(1)
        .with_target(InfluxQuery(query))
    )


def _level_panel() -> timeseries.Panel:
    name = SIGNALS.name
    query = SIGNALS.select(
        {_SHIFT: f"max({name('shift_event')})", _OFF_REFERENCE: f"max({name('off_reference')})"}
    )
    return (
        _lines("Level shifts")
        .description("Off reference stays 1 until the new level is acknowledged in the plant file.")
        .min(0)
        .max(1)
        .decimals(0)
        .line_interpolation(LineInterpolation.STEP_AFTER)
        .with_target(InfluxQuery(query))
        .override_by_name(_SHIFT, _properties(_flag_bars("purple")))
        .override_by_name(_OFF_REFERENCE, _properties({"color": _fixed("orange")}))
    )


def _newest_panel() -> table.Panel:
    """The newest row of each sensor of the machine; its run id leads to Dagster."""
    name = SIGNALS.name
    query = SIGNALS.select(
        {
            _RUN: f"last({name('run_id')})",
            "value": name("value"),
            "status": name("status"),
            "anomaly": name("anomaly"),
            "z": name("z_score"),
            "settings": name("config_version"),
        },
        every=None,
        by=["machine_name", "sensor_name"],
        without=["sensor_name"],
    )
    link = {
        "title": "Open the run in Dagster",
        "url": "${dagster_url:raw}/runs/${__value.raw}",
        "targetBlank": True,
    }
    return (
        table.Panel()
        .title("Newest row of each sensor and the run that computed it")
        .datasource(DATASOURCE)
        .with_target(InfluxQuery(query, result_format="table"))
        .override_by_name(_RUN, _properties({"links": [link]}))
    )


def _lines(title: str) -> timeseries.Panel:
    return (
        timeseries.Panel()
        .title(title)
        .datasource(DATASOURCE)
        .interval("1s")
        .line_width(1)
        .fill_opacity(0)
        .show_points(VisibilityMode.AUTO)
        .insert_nulls(_GAP_MS)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)  # noqa: FBT003  # the SDK's signature
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )


def _flag_bars(color: str) -> dict[str, object]:
    """Full-height bars for a flag of 0 or 1, on an axis of their own that is not shown."""
    return {
        "color": _fixed(color),
        "custom.drawStyle": GraphDrawStyle.BARS,
        "custom.fillOpacity": 45,
        "custom.lineWidth": 0,
        "custom.axisPlacement": "hidden",
        "min": 0,
        "max": 1,
    }


def _fixed(color: str) -> dict[str, object]:
    return {"mode": "fixed", "fixedColor": color}


def _properties(values: Mapping[str, object]) -> list[models.DynamicConfigValue]:
    return [models.DynamicConfigValue(name, value) for name, value in values.items()]
