"""Vibration sensors: three axes and their total, each with a detector."""

import msgspec
import numpy as np

from iiot_platform.analytics.detector import Quantity
from iiot_platform.analytics.vibration import total
from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import schema
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.series.detection import (
    Tested,
    apply_detectors,
    detector_columns,
    verdict_columns,
)
from iiot_platform.engine.series.outcome import Column, Outcome, SeriesRows, TableRows

_decoder = msgspec.msgpack.Decoder(Tested)
_TOTAL = "total"


def compute_vibration(
    key: SeriesKey, state: bytes | None, rows: SeriesRows, settings: LineSettings
) -> Outcome:
    """Rows of `vibration_anomalies`; a flag of the total or of any axis is an anomaly."""
    axes = {
        axis: np.ascontiguousarray(rows.values[:, i])
        for i, axis in enumerate(schema.VIBRATION_AXES)
    }
    overall = total(axes["x"], axes["y"], axes["z"])
    found = apply_detectors(
        None if state is None else _decoder.decode(state),
        settings.detector(key),
        rows.ts,
        {
            _TOTAL: (Quantity.VIBRATION_TOTAL, overall, rows.good),
            **{axis: (Quantity.VIBRATION, x, rows.good) for axis, x in axes.items()},
        },
    )
    columns: dict[str, Column] = {f"vib_accel_rms_{axis}": x for axis, x in axes.items()}
    columns["vib_accel_rms_total"] = overall
    columns["sensor_temperature"] = rows.values[:, len(schema.VIBRATION_AXES)]
    columns |= detector_columns(found.rows[_TOTAL])
    for axis in schema.VIBRATION_AXES:
        columns |= verdict_columns(found.rows[axis], f"vib_accel_rms_{axis}_")
    flagged = np.logical_or.reduce([verdict.anomaly == 1 for verdict in found.rows.values()])
    return Outcome(
        msgspec.msgpack.encode(found.tested),
        (TableRows(schema.VIBRATION_ANOMALIES.name, rows.ts, columns),),
        rows.ts[flagged],
    )
