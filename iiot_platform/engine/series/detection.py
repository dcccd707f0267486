"""Detectors over the quantities of a series, with their states kept under one signature.

A state goes on only under settings that let it: another threshold keeps the window, another
detector, window length or mode starts anew.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from iiot_platform.analytics.detector import (
    DetectorRows,
    Quantity,
    decode_state,
    detector,
    encode_state,
)
from iiot_platform.core.parameters import DetectorParameters
from iiot_platform.core.quality import Status
from iiot_platform.engine.readings import Bools, Floats, Ints
from iiot_platform.engine.series.outcome import Column

STATUS_LABELS = np.array([status.label for status in Status])


class Tested(msgspec.Struct, frozen=True):
    """States of a series' detectors, by quantity, and the signature they were made under."""

    signature: str
    states: dict[str, bytes]


class TestedRows(NamedTuple):
    """What the detectors said, by quantity, and the states behind them."""

    rows: dict[str, DetectorRows]
    tested: Tested


def signature(parameters: DetectorParameters) -> str:
    """What must stay the same for a detector's state to go on."""
    return "/".join(
        str(part)
        for part in (
            parameters.detector,
            parameters.window,
            parameters.rate_window,
            "parity" if parameters.parity else "plain",
        )
    )


def apply_detectors(
    tested: Tested | None,
    parameters: DetectorParameters,
    ts: Ints,
    quantities: Mapping[str, tuple[Quantity, Floats, Bools]],
) -> TestedRows:
    """Tests each quantity of a series with a detector of its own.

    Args:
        tested: the states so far; None, or another signature, starts anew.
        parameters: settings of all the detectors.
        ts: event times, int64[n].
        quantities: by name, what it is, its values, float64[n], and where they are good, bool[n].
    """
    name = signature(parameters)
    kept = tested.states if tested is not None and tested.signature == name else {}
    rows: dict[str, DetectorRows] = {}
    states: dict[str, bytes] = {}
    for quantity, (what, x, good) in quantities.items():
        algorithm = detector(parameters, quantity=what)
        before = kept.get(quantity)
        state = algorithm.init(parameters) if before is None else decode_state(parameters, before)
        rows[quantity], after = algorithm.update(state, ts, x, good)
        states[quantity] = encode_state(after)
    return TestedRows(rows, Tested(name, states))


def verdict_columns(rows: DetectorRows, prefix: str = "") -> dict[str, Column]:
    """The six fields of a tested quantity (`schema.verdict_fields`)."""
    return {
        f"{prefix}anomaly": rows.anomaly,
        f"{prefix}anomaly_ratio": rows.anomaly_ratio,
        f"{prefix}model_avg": rows.model_avg,
        f"{prefix}model_std": rows.model_std,
        f"{prefix}z_score": rows.z_score,
        f"{prefix}z_score_thresh": rows.z_score_thresh,
    }


def detector_columns(rows: DetectorRows) -> dict[str, Column]:
    """The fields of a table whose series have one detector (`schema.detector_fields`)."""
    return {
        **verdict_columns(rows),
        "shift_event": rows.shift_event,
        "off_reference": rows.off_reference,
        "status": STATUS_LABELS[rows.status],
    }
