"""Reads a report from the tables."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd

from iiot_platform.client import Client
from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_S, from_ms, now_ms
from iiot_platform.report.content import (
    Band,
    Chart,
    Curve,
    Figures,
    Group,
    Lineage,
    LineReport,
    Overview,
    Report,
    Section,
    Timeline,
    Times,
)
from iiot_platform.report.downsampling import drawable, stretches

_WARMING: Final = "warming"
_SUMMARY_S: Final = schema.SUMMARY_INTERVAL_MS / MS_PER_S
_SHOWN: Final = (
    schema.LINE_SUMMARY,
    schema.STATES,
    schema.SIGNAL_ANOMALIES,
    schema.VIBRATION_ANOMALIES,
    schema.VALVE_ANOMALIES,
    schema.ELECTRICAL_CYCLES,
    schema.ELECTRICAL_READINGS,
    schema.DATA_QUALITY,
)
_READ: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "Currents": ("A", tuple(f"CurrentL{n}" for n in schema.PHASES)),
    "Active power": ("", ("ActPowerTot", *(f"ActPowerL{n}" for n in schema.PHASES))),
    "Total powers": ("", ("ActPowerTot", "ReactPowerTot", "ApparPowerTot")),
}


@dataclass(frozen=True)
class _Window:
    """The period of the report."""

    start_ms: int
    end_ms: int

    @property
    def start(self) -> datetime:
        return from_ms(self.start_ms)

    @property
    def end(self) -> datetime:
        return from_ms(self.end_ms)


def read_report(client: Client, *, lines: Iterable[str] | None = None, last_s: float) -> Report:
    """The newest rows of lines.

    Args:
        client: where the tables are read from.
        lines: their names; None: all that have anything computed.
        last_s: length of the period, which ends with the newest row of these lines; shorter where
            the first row is newer.

    Raises:
        UnknownNameError: there is no such line.
        StorageError: the tables can not be read.
    """
    names = client.lines() if lines is None else list(lines)
    there = {line: client.tables(line) for line in names}
    spans = [
        (int(_ms(found["first"]).min()), int(_ms(found["last"]).max()))
        for found in there.values()
        if len(found)
    ]
    made_ms = now_ms()
    end_ms = max((newest for _, newest in spans), default=made_ms) + 1
    start_ms = end_ms - round(last_s * MS_PER_S)
    oldest_ms = min((oldest for oldest, _ in spans), default=start_ms)
    window = _Window(max(start_ms, oldest_ms), end_ms)
    return Report(
        window.start_ms,
        window.end_ms,
        made_ms,
        tuple(_line(client, line, there[line], window) for line in names),
    )


def _line(client: Client, line: str, there: pd.DataFrame, window: _Window) -> LineReport:
    frames = {
        table.name: client.table(line, table.name, start=window.start, end=window.end)
        for table in _SHOWN
    }
    summary = frames[schema.LINE_SUMMARY.name]
    newest = there.loc[there["table"] == schema.READINGS.name, "last"]
    newest_ms = int(_ms(newest).max()) if len(newest) else None
    sections = (
        Section("Overview", (Group("", tuple(_summary_charts(summary))),)),
        Section("States", tuple(_states(frames[schema.STATES.name], window))),
        Section("Signals", tuple(_signals(frames[schema.SIGNAL_ANOMALIES.name]))),
        Section("Vibration", tuple(_vibration(frames[schema.VIBRATION_ANOMALIES.name]))),
        Section("Air valves", tuple(_valves(frames[schema.VALVE_ANOMALIES.name]))),
        Section(
            "Electrical",
            tuple(
                _electrical(
                    frames[schema.ELECTRICAL_CYCLES.name], frames[schema.ELECTRICAL_READINGS.name]
                )
            ),
        ),
        Section("Data quality", tuple(_quality(frames[schema.DATA_QUALITY.name]))),
    )
    return LineReport(
        line,
        _overview(summary, newest_ms),
        tuple(section for section in sections if any(group.charts for group in section.groups)),
        tuple(_lineage(name, rows) for name, rows in frames.items() if len(rows)),
    )


def _overview(summary: pd.DataFrame, newest_ms: int | None) -> Overview:
    readings = int(summary["readings"].sum())
    known = summary["known_share"].to_numpy(np.float64)
    weights = summary["readings"].to_numpy(np.float64)
    return Overview(
        newest_ms=newest_ms,
        readings=readings,
        series=int(summary["devices"].max()) if len(summary) else 0,
        anomalies=int(summary["anomalies"].sum()),
        quarantined=int(summary["quarantined"].sum()),
        running_share=_mean(summary["running_share"], known),
        lateness_mean_s=_mean(summary["lateness_mean_s"], weights),
        lateness_max_s=float(summary["lateness_max_s"].max()) if readings else None,
    )


def _mean(values: pd.Series, weights: "np.ndarray[Any, Any]") -> float | None:
    """The weighted mean; None where there is no weight."""
    total = float(weights.sum())
    return float((values.to_numpy(np.float64) * weights).sum()) / total if total > 0 else None


def _summary_charts(rows: pd.DataFrame) -> Iterator[Chart]:
    if not len(rows):
        return
    known = rows[rows["known_share"] > 0]
    every = f"per {_SUMMARY_S:.0f} s"
    if len(known):
        curve = _curve(known, "running_share", "running share")
        yield Chart("Running share", (curve,), bounds=(0.0, 1.0))
    yield Chart(
        f"Anomalies {every}", (_curve(rows, "anomalies"),), style="bars", bounds=(0.0, None)
    )
    lateness = (
        _curve(rows, "lateness_max_s", "largest"),
        _curve(rows, "lateness_mean_s", "mean"),
    )
    yield Chart("Lag: receive time minus event time", lateness, unit="s")
    yield Chart(f"Readings {every}", (_curve(rows, "readings"),), bounds=(0.0, None))
    if rows["quarantined"].any():
        yield Chart(
            f"Messages set aside {every}",
            (_curve(rows, "quarantined", "set aside"),),
            style="bars",
            bounds=(0.0, None),
        )


def _states(rows: pd.DataFrame, window: _Window) -> Iterator[Group]:
    timelines, finer = [], 0
    for (machine, name), own in _series(rows, "machine_name", "state_name"):
        found = stretches(_ms(own["ts"]), own["value"].to_numpy(np.int64), window.end_ms)
        shown, left = drawable(found, window.start_ms, window.end_ms)
        timelines.append((f"{machine} / {name}", shown))
        finer += left
    if timelines:
        yield Group("", (Timeline("States", tuple(timelines), finer),))


def _signals(rows: pd.DataFrame) -> Iterator[Group]:
    for (machine,), own in _series(rows, "machine_name"):
        charts = tuple(
            _tested(schema.SIGNAL_ANOMALIES, one, (machine, name), "value", title=name)
            for (name,), one in _series(own, "sensor_name")
        )
        yield Group(machine, charts)


def _vibration(rows: pd.DataFrame) -> Iterator[Group]:
    table = schema.VIBRATION_ANOMALIES
    for (machine, name), own in _series(rows, "machine_name", "sensor_name"):
        series = (machine, name)
        total = _tested(table, own, series, "vib_accel_rms_total", title="Total", wide=True)
        axes = (
            _tested(
                table,
                own,
                series,
                f"vib_accel_rms_{axis}",
                title=f"{axis} axis",
                prefix=f"vib_accel_rms_{axis}_",
            )
            for axis in schema.VIBRATION_AXES
        )
        charts = [total, *axes]
        temperature = _curve(own, "sensor_temperature", "temperature")
        if np.isfinite(temperature.values).any():
            charts.append(Chart("Sensor temperature", (temperature,)))
        yield Group(f"{machine} / {name}", tuple(charts))


def _valves(rows: pd.DataFrame) -> Iterator[Group]:
    for (machine, name), own in _series(rows, "machine_name", "sensor_name"):
        charts = tuple(
            _tested(
                schema.VALVE_ANOMALIES,
                one,
                (machine, f"{name} {operation}"),
                "value",
                title=operation,
                unit=schema.VALVE_ANOMALIES.column("value").unit,
            )
            for (operation,), one in _series(own, "operation_type")
        )
        yield Group(f"{machine} / {name}", charts)


def _electrical(cycles: pd.DataFrame, readings: pd.DataFrame) -> Iterator[Group]:
    table = schema.ELECTRICAL_CYCLES
    for (machine, name), own in _series(cycles, "machine_name", "device_name"):
        charts = [
            _tested(
                table,
                own,
                (machine, name),
                f"{quantity}_ph{n}",
                title=f"{title}, phase {n}",
                prefix=f"{quantity}_ph{n}_",
                unit=table.column(f"{quantity}_ph{n}").unit,
                style="points",
            )
            for quantity, title in (
                ("el_current_integral", "Current integral"),
                ("el_inrush_current", "Inrush current"),
            )
            for n in schema.PHASES
        ]
        imbalance = (
            _curve(own, "el_current_assymetry", "asymmetry"),
            _curve(own, "el_current_unbalance", "unbalance (NEMA)"),
        )
        charts.append(
            Chart("Asymmetry and unbalance of the currents", imbalance, "%", style="points")
        )
        length = _curve(own, "cycle_s", "length")
        charts.append(Chart("Length of the cycle", (length,), "s", style="points"))
        yield Group(f"{machine} / {name}: cycles", tuple(charts))
    for (machine, name), own in _series(readings, "machine_name", "device_name"):
        charts = [
            Chart(title, tuple(_curve(own, column) for column in columns), unit)
            for title, (unit, columns) in _READ.items()
        ]
        yield Group(f"{machine} / {name}: readings", tuple(charts))


def _quality(rows: pd.DataFrame) -> Iterator[Group]:
    charts = tuple(
        Chart(
            f"{reason} per {_SUMMARY_S:.0f} s",
            (_curve(own, "count"),),
            style="bars",
            bounds=(0.0, None),
        )
        for (reason,), own in _series(rows, "reason")
    )
    if charts:
        yield Group("", charts)


def _tested(
    table: schema.Table,
    rows: pd.DataFrame,
    series: tuple[str, str],
    column: str,
    *,
    title: str,
    prefix: str = "",
    unit: str = "",
    style: Any = "line",
    wide: bool = False,
) -> Chart:
    """A quantity with the verdict of its detector."""
    ts = _ms(rows["ts"])
    mean, std, threshold = (
        rows[f"{prefix}{name}"].to_numpy(np.float64)
        for name in ("model_avg", "model_std", "z_score_thresh")
    )
    learnt = std > 0  # 0 while the detector warms up, floored above it after
    lower, upper = mean - threshold * std, mean + threshold * std
    flagged = rows[f"{prefix}anomaly"].to_numpy(np.int64) > 0
    values = rows[column].to_numpy(np.float64)
    ratio = rows[f"{prefix}anomaly_ratio"].to_numpy(np.float64)
    has_levels = "shift_event" in rows
    figures = Figures(
        table=table.name,
        machine=series[0],
        series=series[1],
        quantity=column,
        rows=len(rows),
        warming=int((rows["status"] == _WARMING).sum()),
        anomalies=int(flagged.sum()),
        ratio=float(ratio[-1]),
        value=_number(values[-1]),
        lower=_number(lower[-1]) if learnt[-1] else None,
        upper=_number(upper[-1]) if learnt[-1] else None,
        off_reference=bool(has_levels and rows["off_reference"].iloc[-1]),
    )
    return Chart(
        title,
        (Curve("value", ts, values),),
        unit,
        band=Band(ts[learnt], lower[learnt], upper[learnt]),
        anomalies=Curve("anomaly", ts[flagged], values[flagged]),
        shifts=ts[rows["shift_event"].to_numpy(np.int64) > 0] if has_levels else ts[:0],
        ratio=Curve("anomaly ratio", ts, ratio),
        figures=figures,
        style=style,
        wide=wide,
    )


def _series(rows: pd.DataFrame, *tags: str) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """The rows of each series, in alphabetical order."""
    for key, own in rows.groupby(list(tags), sort=True):
        yield tuple(map(str, key)), own


def _curve(rows: pd.DataFrame, column: str, name: str | None = None) -> Curve:
    return Curve(name or column, _ms(rows["ts"]), rows[column].to_numpy(np.float64))


def _lineage(table: str, rows: pd.DataFrame) -> Lineage:
    return Lineage(
        table=table,
        rows=len(rows),
        newest_ms=int(_ms(rows["ts"]).max()),
        runs=int(rows["run_id"].nunique()),
        newest_run=str(rows["run_id"].iloc[-1]),
        settings=tuple(sorted(map(str, rows["config_version"].unique()))),
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _ms(times: pd.Series) -> Times:
    found: Times = times.dt.as_unit("ms").astype("int64").to_numpy()
    return found
