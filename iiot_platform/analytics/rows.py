"""What a detector says about each value: columns of equal length."""

from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Int8s = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]

MAX_MAGNITUDE = 1e100
"""A value beyond it is no measurement: it is treated like NaN, so that no sum can overflow."""


class Quantity(Enum):
    """What a series measures; the older scripts rounded by it (parity mode alone reads it)."""

    SIGNAL = "signal"
    VIBRATION = "vibration"
    VIBRATION_TOTAL = "vibration_total"
    VALVE = "valve"
    ELECTRICAL = "electrical"


class DetectorRows(NamedTuple):
    """The verdict on n values; every float is finite, and anomaly == (|z_score| > thresh).

    A row that is not tested (`WARMING`, `BAD_QUALITY`) has anomaly 0 and z 0. While the model is
    being learnt its other fields are 0 too, `off_reference` apart; a row of bad quality shows the
    model that a good value would have been tested against.

    Attributes:
        anomaly: int8[n], 1 where the value is an anomaly.
        anomaly_ratio: float64[n], share of anomalies in the last `rate_window` flags.
        model_avg: float64[n], location of the model, in the unit of the value.
        model_std: float64[n], scale of the model, floored.
        z_score: float64[n], the detector's statistic in standard deviations.
        z_score_thresh: float64[n], its limit.
        shift_event: int8[n], 1 where a shift of level was learnt anew.
        off_reference: int8[n], 1 from a shift until its acknowledgement.
        status: uint8[n], `core.quality.Status`.
        alert: int8[n], 1 where an anomaly is outside the refractory points of the alert before.
    """

    anomaly: Int8s
    anomaly_ratio: Floats
    model_avg: Floats
    model_std: Floats
    z_score: Floats
    z_score_thresh: Floats
    shift_event: Int8s
    off_reference: Int8s
    status: Bytes
    alert: Int8s


def usable(x: Floats, good: Bools) -> Bools:
    """Where a value may be tested and learnt: Good, finite and of a possible magnitude."""
    with np.errstate(invalid="ignore"):
        accepted: Bools = np.asarray(good, np.bool_) & (np.abs(x) <= MAX_MAGNITUDE)
    return accepted


def floats_of(data: bytes) -> Floats:
    """The float64 values of a state's bytes (little-endian), read-only."""
    return np.frombuffer(data, "<f8").astype(np.float64, copy=False)


def bytes_of(values: Any) -> bytes:
    """Float64 values as the little-endian bytes that states hold."""
    return np.ascontiguousarray(values, "<f8").tobytes()
