"""State series: what a reading ended and for how long it had lasted."""

from typing import NamedTuple

import msgspec
import numpy as np

from iiot_platform.analytics.batches import decode, encode, require_equal_length
from iiot_platform.analytics.rows import Bools, Floats, Ints
from iiot_platform.core.clock import MS_PER_S


class StateRows(NamedTuple):
    """What n readings of a state say.

    Attributes:
        previous_value: int64[n], state before this reading; the same where it did not change.
        duration_s: float64[n], length of the state that ended here, 0 where none ended.
    """

    previous_value: Ints
    duration_s: Floats


class StateSeries(msgspec.Struct, frozen=True, tag="states"):
    """The open state of a series; `None` before the first good reading.

    Attributes:
        value: the state that holds.
        since_ms: event time at which it began.
    """

    value: int | None = None
    since_ms: int = 0


def update(state: StateSeries, ts: Ints, value: Ints, good: Bools) -> tuple[StateRows, StateSeries]:
    """The rows of readings in time order, and the open state behind them.

    A state begins at the first good reading that has it and ends at the first good reading that
    has another. A reading that is not Good neither ends nor begins one: it shows the open state
    (its own value where there is none yet) and duration 0. A duration is what was read, silence
    included, and is never negative.

    Args:
        state: the open state before the first reading.
        ts: event times in ms, int64[n].
        value: states as read, int64[n].
        good: bool[n], False where the quality is not Good.

    Raises:
        AnalysisError: arrays of different lengths.
    """
    n = len(value)
    require_equal_length("a state series", ts=ts, value=value, good=good)
    previous = np.array(value, np.int64)
    duration_s = np.zeros(n)
    rows = np.flatnonzero(good)
    if state.value is not None:
        previous[: rows[0] if len(rows) else n] = state.value
    if not len(rows):
        return StateRows(previous, duration_s), state
    read = np.asarray(value, np.int64)[rows]
    before = np.empty_like(read)
    before[0] = read[0] if state.value is None else state.value
    before[1:] = read[:-1]
    shown = np.maximum.accumulate(np.where(good, np.arange(n), -1))
    held = shown >= 0
    previous[held] = np.asarray(value, np.int64)[shown[held]]
    previous[rows] = before

    changes = np.flatnonzero(read != before)
    times = np.asarray(ts, np.int64)[rows]
    origin = times[0] if state.value is None else state.since_ms
    begins = np.concatenate(([origin], times[changes]))
    ended = np.maximum(begins[1:] - begins[:-1], 0)
    duration_s[rows[changes]] = ended / MS_PER_S
    return StateRows(previous, duration_s), StateSeries(int(read[-1]), int(begins[-1]))


def encode_state(state: StateSeries) -> bytes:
    """The open state as MessagePack; equal states give equal bytes."""
    return encode(state)


def decode_state(data: bytes) -> StateSeries:
    """The open state that `encode_state` wrote.

    Raises:
        AnalysisError: the bytes are damaged or of another kind of state.
    """
    return decode(data, StateSeries)
