"""Electrical devices: every reading, and every cycle with its quantities tested."""

import math

import msgspec
import numpy as np

from iiot_platform.analytics import cycles
from iiot_platform.analytics.cycles import Cycle, OpenCycle
from iiot_platform.analytics.detector import Quantity
from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import schema
from iiot_platform.core.names import SeriesKey
from iiot_platform.core.parameters import CycleParameters
from iiot_platform.core.quality import Status
from iiot_platform.engine.readings import Bools, Floats
from iiot_platform.engine.series.detection import (
    STATUS_LABELS,
    Tested,
    TestedRows,
    apply_detectors,
    verdict_columns,
)
from iiot_platform.engine.series.outcome import Column, Outcome, SeriesRows, TableRows

_CURRENTS = [schema.ELECTRICAL_SCALARS.index(f"CurrentL{n}") for n in schema.PHASES]


class _State(msgspec.Struct, frozen=True):
    """The open cycle, and the detectors of the closed ones with what they were measured by."""

    cycle: OpenCycle
    measured: str
    tested: Tested | None


_decoder = msgspec.msgpack.Decoder(_State)


def compute_electrical(
    key: SeriesKey, state: bytes | None, rows: SeriesRows, settings: LineSettings
) -> Outcome:
    """Rows of `electrical_readings` and `electrical_cycles`.

    A cycle counts in the hour of the reading that closes it. Quantities that are measured in
    another way than before are learnt anew.
    """
    parameters = settings.cycle(key)
    detection = settings.detector(key)
    measured = _measured_by(parameters, parity=detection.parity)
    before = _State(OpenCycle(), measured, None) if state is None else _decoder.decode(state)
    closed, open_cycle = cycles.update(
        before.cycle,
        rows.ts,
        rows.state == 1,
        rows.pulse == 1,
        rows.values[:, _CURRENTS],
        rows.good,
        parameters,
        parity=detection.parity,
    )
    at = np.array([cycle.ts for cycle in closed], np.int64)
    counts = np.array([cycle.status == Status.OK for cycle in closed], np.bool_)
    found = apply_detectors(
        before.tested if before.measured == measured else None,
        detection,
        at,
        {name: (Quantity.ELECTRICAL, x, counts & there) for name, x, there in _quantities(closed)},
    )
    flagged = np.zeros(len(closed), np.bool_)
    for verdict in found.rows.values():
        flagged |= verdict.anomaly == 1
    return Outcome(
        msgspec.msgpack.encode(_State(open_cycle, measured, found.tested)),
        (
            TableRows(schema.ELECTRICAL_READINGS.name, rows.ts, _reading_columns(rows)),
            TableRows(schema.ELECTRICAL_CYCLES.name, at, _cycle_columns(closed, found)),
        ),
        at[flagged],
    )


def _measured_by(parameters: CycleParameters, *, parity: bool) -> str:
    """What must stay the same for the detectors to go on."""
    return "/".join(
        str(part)
        for part in (
            parameters.integral,
            parameters.inrush_method,
            parameters.inrush_window_ms,
            parameters.inrush_peak,
            parameters.inrush_height_a,
            parity,
        )
    )


def _quantities(closed: list[Cycle]) -> list[tuple[str, Floats, Bools]]:
    """Each tested quantity: its name, its value per cycle, and where it was found at all."""
    found: list[tuple[str, Floats, Bools]] = []
    for i, n in enumerate(schema.PHASES):
        integral = np.array([cycle.integral[i] for cycle in closed], np.float64)
        inrush = np.array([cycle.inrush[i] for cycle in closed], np.float64)
        there = np.array([cycle.inrush_found[i] for cycle in closed], np.bool_)
        found.append((f"el_current_integral_ph{n}", integral, np.ones(len(closed), np.bool_)))
        found.append((f"el_inrush_current_ph{n}", inrush, there))
    return found


def _reading_columns(rows: SeriesRows) -> dict[str, Column]:
    columns: dict[str, Column] = {
        name: rows.values[:, i] for i, name in enumerate(schema.ELECTRICAL_SCALARS)
    }
    columns["device_state"] = rows.state
    return columns


def _cycle_columns(closed: list[Cycle], found: TestedRows) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for name, x, _ in _quantities(closed):
        columns[name] = x
        columns |= verdict_columns(found.rows[name], f"{name}_")
    for i, n in enumerate(schema.PHASES):
        columns[f"el_inrush_first_ph{n}"] = np.array(
            [cycle.inrush_first[i] for cycle in closed], np.float64
        )
    columns["el_current_assymetry"] = _or_nan([cycle.asymmetry for cycle in closed])
    columns["el_current_unbalance"] = _or_nan([cycle.unbalance for cycle in closed])
    columns["cycle_s"] = np.array([cycle.cycle_s for cycle in closed], np.float64)
    columns["samples"] = np.array([cycle.samples for cycle in closed], np.int64)
    columns["coverage"] = np.array([cycle.coverage for cycle in closed], np.float64)
    columns["max_gap_s"] = np.array([cycle.max_gap_s for cycle in closed], np.float64)
    columns["status"] = _status(closed, found)
    return columns


def _or_nan(values: list[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _status(closed: list[Cycle], found: TestedRows) -> Column:
    """The cycle's own status where it was not tested, else the most telling of its detectors."""
    status = np.array([cycle.status for cycle in closed], np.uint8)
    for telling in (Status.WARMING, Status.RELEARNED):
        for verdict in found.rows.values():
            status[(verdict.status == telling) & (status <= Status.WARMING)] = telling
    return STATUS_LABELS[status]
