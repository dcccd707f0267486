"""What a report shows of each kind of data, from the rows of a line."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_S, hour_of, hour_start_ms
from iiot_platform.core.parameters import StateParameters
from iiot_platform.engine.coverage import covered_share
from iiot_platform.report.content import Band, Chart, Curve, Figures, Group, Timeline, Times
from iiot_platform.report.downsampling import drawable, stretches

HOLD_S: Final = StateParameters().hold_s
_WARMING: Final = "warming"
_SUMMARY_S: Final = schema.SUMMARY_INTERVAL_MS / MS_PER_S
_READ: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "Currents": ("A", tuple(f"CurrentL{n}" for n in schema.PHASES)),
    "Active power": ("", ("ActPowerTot", *(f"ActPowerL{n}" for n in schema.PHASES))),
    "Total powers": ("", ("ActPowerTot", "ReactPowerTot", "ApparPowerTot")),
    "Voltages": ("V", tuple(f"VoltL{n}" for n in schema.PHASES)),
    "Power factor": ("", ("PowerFact", *(f"PowFactL{n}" for n in schema.PHASES))),
    "Current distortion (THD)": ("", tuple(f"CurrentL{n}_THD" for n in schema.PHASES)),
}


def summary_charts(rows: pd.DataFrame) -> Iterator[Chart]:
    """What the line did as a whole."""
    if not len(rows):
        return
    known = rows[rows["known_share"] > 0]
    every = f"per {_SUMMARY_S:.0f} s"
    if len(known):
        shares = (
            _curve(known, "running_share", "running"),
            _curve(rows, "known_share", "known"),
        )
        yield Chart("Running share, and known share of the time", shares, bounds=(0.0, 1.0))
    yield Chart(
        f"Anomalies {every}", (_curve(rows, "anomalies"),), style="bars", bounds=(0.0, None)
    )
    lateness = (
        _curve(rows, "lateness_max_s", "largest"),
        _curve(rows, "lateness_mean_s", "mean"),
    )
    yield Chart("Lateness: receive time minus event time", lateness, unit="s")
    yield Chart(f"Readings {every}", (_curve(rows, "readings"),), bounds=(0.0, None))
    yield Chart("Series with readings", (_curve(rows, "devices", "series"),), bounds=(0.0, None))
    if rows["quarantined"].any():
        yield Chart(
            f"Messages set aside {every}",
            (_curve(rows, "quarantined", "set aside"),),
            style="bars",
            bounds=(0.0, None),
        )
    if rows["missing_s"].any():
        missing = _curve(rows, "missing_s", "missing")
        yield Chart("Gaps: time without data", (missing,), "s", style="bars", bounds=(0.0, None))


def coverage(gaps: Sequence[tuple[int, int]], start_ms: int, end_ms: int) -> Iterator[Chart]:
    """The share of each hour that lies in no gap, where there is any gap."""
    hours = range(hour_of(start_ms), hour_of(end_ms - 1) + 1)
    shares = np.array([covered_share(gaps, hour, end_ms) for hour in hours])
    if (shares < 1).any():
        edges = [
            (max(hour_start_ms(hour), start_ms), min(hour_start_ms(hour + 1), end_ms) - 1)
            for hour in hours
        ]
        curve = Curve("covered", np.array(edges, np.int64).ravel(), np.repeat(shares, 2))
        yield Chart("Coverage of hours", (curve,), bounds=(None, 1.0))


def states(rows: pd.DataFrame, start_ms: int, end_ms: int) -> Iterator[Group]:
    """The states of all machines under each other."""
    timelines, finer = [], 0
    known = rows.dropna(subset=["value"])
    for (machine, name), own in _series(known, "machine_name", "state_name"):
        values = own["value"].to_numpy(np.int64)
        found = stretches(milliseconds(own["ts"]), values, end_ms, hold_s=HOLD_S)
        shown, left = drawable(found, start_ms, end_ms)
        timelines.append((f"{machine} / {name}", shown))
        finer += left
    if timelines:
        yield Group("", (Timeline("States", tuple(timelines), finer), *_ended(known)))


def _ended(rows: pd.DataFrame) -> Iterator[Chart]:
    """How long the states of each machine were that ended."""
    for (machine,), own in _series(rows[rows["duration_s"] > 0], "machine_name"):
        curves = tuple(
            _curve(one, "duration_s", name) for (name,), one in _series(own, "state_name")
        )
        title = f"{machine}: length of states that ended"
        yield Chart(title, curves, "s", style="bars", bounds=(0.0, None))


def signals(rows: pd.DataFrame) -> Iterator[Group]:
    """The signals of each machine."""
    for (machine,), own in _series(rows, "machine_name"):
        charts = tuple(
            _tested(schema.SIGNAL_ANOMALIES, one, (machine, name), "value", title=name)
            for (name,), one in _series(own, "sensor_name")
        )
        yield Group(machine, charts)


def vibration(rows: pd.DataFrame) -> Iterator[Group]:
    """The total and the axes of each sensor."""
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


def valves(rows: pd.DataFrame) -> Iterator[Group]:
    """The operations of each valve."""
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


def electrical(cycles: pd.DataFrame, readings: pd.DataFrame) -> Iterator[Group]:
    """Cycles and readings of each device."""
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
        charts.append(
            Chart(
                "Maximum at the start",
                tuple(_curve(own, f"el_inrush_first_ph{n}", f"phase {n}") for n in schema.PHASES),
                "A",
                style="points",
            )
        )
        lengths = (_curve(own, "cycle_s", "length"), _curve(own, "max_gap_s", "longest gap"))
        charts.append(Chart("Length of the cycle and longest gap", lengths, "s", style="points"))
        covered = (_curve(own, "coverage"),)
        charts.append(Chart("Coverage of the cycle", covered, style="points", bounds=(0.0, 1.0)))
        yield Group(f"{machine} / {name}: cycles", tuple(charts))
    for (machine, name), own in _series(readings, "machine_name", "device_name"):
        charts = []
        for title, (unit, columns) in _READ.items():
            curves = tuple(_curve(own, column) for column in columns)
            if any(np.isfinite(curve.values).any() for curve in curves):
                charts.append(Chart(title, curves, unit))
        yield Group(f"{machine} / {name}: readings", tuple(charts))


def quality(rows: pd.DataFrame) -> Iterator[Group]:
    """What was set aside or came late, by reason."""
    charts = tuple(
        Chart(
            f"{reason} per {_SUMMARY_S:.0f} s, {own['count'].sum():,} in all",
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
    ts = milliseconds(rows["ts"])
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
    return Curve(name or column, milliseconds(rows["ts"]), rows[column].to_numpy(np.float64))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def milliseconds(times: pd.Series) -> Times:
    """Times as Unix ms."""
    found: Times = times.dt.as_unit("ms").astype("int64").to_numpy()
    return found
