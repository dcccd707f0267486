"""Signals and valve operations: one value, one detector."""

import msgspec
import numpy as np

from iiot_platform.analytics.detector import Quantity
from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import schema
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.series.detection import Tested, apply_detectors, detector_columns
from iiot_platform.engine.series.outcome import Column, Outcome, SeriesRows, TableRows

_decoder = msgspec.msgpack.Decoder(Tested)


def compute_signal(
    key: SeriesKey, state: bytes | None, rows: SeriesRows, settings: LineSettings
) -> Outcome:
    """Rows of `signals` and `signal_anomalies`."""
    tested, outcome = _compute(key, state, rows, settings, Quantity.SIGNAL)
    plain = TableRows(schema.SIGNALS.name, rows.ts, {"value": rows.values[:, 0]})
    verdict = TableRows(schema.SIGNAL_ANOMALIES.name, rows.ts, outcome)
    return Outcome(tested, (plain, verdict), rows.ts[np.asarray(outcome["anomaly"]) == 1])


def compute_valve(
    key: SeriesKey, state: bytes | None, rows: SeriesRows, settings: LineSettings
) -> Outcome:
    """Rows of `valve_anomalies`; the operation is part of the key."""
    tested, outcome = _compute(key, state, rows, settings, Quantity.VALVE)
    verdict = TableRows(schema.VALVE_ANOMALIES.name, rows.ts, outcome)
    return Outcome(tested, (verdict,), rows.ts[np.asarray(outcome["anomaly"]) == 1])


def _compute(
    key: SeriesKey,
    state: bytes | None,
    rows: SeriesRows,
    settings: LineSettings,
    quantity: Quantity,
) -> tuple[bytes, dict[str, Column]]:
    value = np.ascontiguousarray(rows.values[:, 0])
    found = apply_detectors(
        None if state is None else _decoder.decode(state),
        settings.detector(key),
        rows.ts,
        {"value": (quantity, value, rows.good)},
    )
    columns: dict[str, Column] = {"value": value, **detector_columns(found.rows["value"])}
    return msgspec.msgpack.encode(found.tested), columns
