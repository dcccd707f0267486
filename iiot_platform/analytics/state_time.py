"""Running and known time of a state series per interval, in whole milliseconds."""

from typing import Final, NamedTuple

import msgspec
import numpy as np

from iiot_platform.analytics.batches import require_equal_length
from iiot_platform.analytics.rows import Bools, Ints
from iiot_platform.core.clock import MS_PER_S

INTERVAL_MS: Final = 10_000
"""The interval of the line summary."""


class Carry(msgspec.Struct, frozen=True, tag="state_time"):
    """The last reading, whose time is attributed when the next one arrives.

    Attributes:
        value: its state; `None` where it was not Good or there was none.
        ts_ms: its event time.
    """

    value: int | None = None
    ts_ms: int = 0


class IntervalTimes(NamedTuple):
    """Time per interval, ascending; intervals without known time are left out.

    Attributes:
        interval_start_ms: int64[m], start of the interval.
        running_ms: int64[m], known time in a running state.
        known_ms: int64[m], time with a known state.
    """

    interval_start_ms: Ints
    running_ms: Ints
    known_ms: Ints


def time_in_state(
    ts: Ints,
    value: Ints,
    good: Bools,
    carry: Carry,
    running: tuple[int, ...],
    hold_s: float,
    interval_ms: int = INTERVAL_MS,
) -> tuple[IntervalTimes, Carry]:
    """The time that readings settle, split over intervals, and the reading left open.

    A good reading holds from its time to that of the next reading, but at most `hold_s`; after
    that the state is unknown. A reading that is not Good ends what is known. The time between two
    readings is attributed when the later one arrives, so that it may belong to intervals, even
    hours, before the batch; sums over any cut of the readings are the same.

    Args:
        ts: event times in ms, int64[n], in order; a step back in time settles nothing.
        value: states as read, int64[n].
        good: bool[n], False where the quality is not Good.
        carry: the reading before the first.
        running: states that count as running.
        hold_s: how long a reading holds at most.
        interval_ms: length of an interval; intervals start at multiples of it.

    Raises:
        AnalysisError: arrays of different lengths.
    """
    n = len(value)
    require_equal_length("a state series", ts=ts, value=value, good=good)
    if n == 0:
        return _sums(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_)), carry
    known = np.concatenate(([carry.value is not None], good[:-1])).astype(np.bool_)
    held = np.concatenate(([carry.value or 0], value[:-1])).astype(np.int64)
    start = np.concatenate(([carry.ts_ms], ts[:-1])).astype(np.int64)
    stop = np.minimum(np.asarray(ts, np.int64), start + round(hold_s * MS_PER_S))
    settled = known & (stop > start)
    runs = np.isin(held[settled], running)
    last = Carry(int(value[-1]) if good[-1] else None, int(ts[-1]))
    return _split(start[settled], stop[settled], runs, interval_ms), last


def _split(start: Ints, stop: Ints, runs: Bools, interval_ms: int) -> IntervalTimes:
    """Half-open spans cut at the starts of intervals and summed per interval."""
    first = start // interval_ms
    pieces = (stop - 1) // interval_ms - first + 1
    span = np.repeat(np.arange(len(start)), pieces)
    place = np.arange(len(span)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = (first[span] + place) * interval_ms
    length = np.minimum(stop[span], begin + interval_ms) - np.maximum(start[span], begin)
    return _sums(begin, length, runs[span])


def _sums(begin: Ints, length: Ints, runs: Bools) -> IntervalTimes:
    starts, place = np.unique(begin, return_inverse=True)
    known_ms = np.zeros(len(starts), np.int64)
    running_ms = np.zeros(len(starts), np.int64)
    np.add.at(known_ms, place, length)
    np.add.at(running_ms, place, length * runs)
    return IntervalTimes(starts, running_ms, known_ms)
