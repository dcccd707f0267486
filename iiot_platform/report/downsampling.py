"""As many points as there are pixels, without hiding an extreme.

Of each pixel column the first, the lowest, the highest and the last point are kept, so that the
line is that of all points (M4: Jugel et al., VLDB 2014).
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from iiot_platform.core.clock import MS_PER_S
from iiot_platform.report.content import Mask, Stretch, Times, Values

COLUMNS: Final = 400
GAP_FACTOR: Final = 10.0
SHORTEST_GAP_MS: Final = 10_000

Indices = npt.NDArray[np.int64]


def column_of(ts: Times, start_ms: int, end_ms: int, columns: int = COLUMNS) -> Indices:
    """The pixel column of each time in [start_ms, end_ms]."""
    width = max(end_ms - start_ms, 1)
    found: Indices = np.clip((ts - start_ms) * columns // width, 0, columns - 1)
    return found


def kept(ts: Times, values: Values, start_ms: int, end_ms: int) -> Indices:
    """The points that are drawn, in order; a value that is NaN never is.

    Args:
        ts: shape (n,), ascending.
        values: shape (n,).
        start_ms: first time of the picture.
        end_ms: last time of the picture.
    """
    valid = np.flatnonzero(np.isfinite(values))
    if len(valid) <= 4 * COLUMNS:
        return valid
    columns = column_of(ts[valid], start_ms, end_ms)
    first = np.flatnonzero(np.r_[True, columns[1:] != columns[:-1]])
    last = np.r_[first[1:] - 1, len(valid) - 1]
    ordered = np.lexsort((values[valid], columns))
    chosen = np.unique(np.concatenate([first, last, ordered[first], ordered[last]]))
    points: Indices = valid[chosen]
    return points


def last_of_columns(ts: Times, start_ms: int, end_ms: int) -> Indices:
    """The last point of each column."""
    if len(ts) <= COLUMNS:
        return np.arange(len(ts))
    columns = column_of(ts, start_ms, end_ms)
    return np.flatnonzero(np.r_[columns[1:] != columns[:-1], True])


def gap_ms(ts: Times) -> float:
    """How long a series may be silent before its line is broken."""
    if len(ts) < 2:  # noqa: PLR2004  # two points make one interval
        return float(SHORTEST_GAP_MS)
    return max(GAP_FACTOR * float(np.median(np.diff(ts))), float(SHORTEST_GAP_MS))


def breaks(ts: Times, chosen: Indices, *, valid: Mask | None = None) -> Mask:
    """Whether a line is broken before each chosen point: where rows or values are missing.

    Args:
        ts: shape (n,), ascending, of all rows.
        chosen: the rows that are drawn.
        valid: rows that have a value; None: all.
    """
    present = np.arange(len(ts)) if valid is None else np.flatnonzero(valid)
    if not len(chosen):
        return np.zeros(0, np.bool_)
    limit = gap_ms(ts)
    broken = np.r_[False, np.diff(ts[present]) > limit]
    count = np.cumsum(broken)[np.searchsorted(present, chosen)]
    first: Mask = np.r_[True, np.diff(count) > 0]
    return first


def stretches(ts: Times, values: Indices, end_ms: int, *, hold_s: float) -> list[Stretch]:
    """How long each value of a state held.

    Args:
        ts: shape (n,), ascending.
        values: shape (n,).
        end_ms: up to when the last one holds at most.
        hold_s: how long a state is held after its last reading; then it is unknown.
    """
    if not len(ts):
        return []
    until = np.r_[ts[1:], max(end_ms, int(ts[-1]) + 1)]
    held = np.minimum(until, ts + round(hold_s * MS_PER_S))
    starts = np.flatnonzero(np.r_[True, (values[1:] != values[:-1]) | (held < until)[:-1]])
    ends = np.r_[starts[1:] - 1, len(ts) - 1]
    return [
        Stretch(int(ts[a]), int(held[b]), int(values[a])) for a, b in zip(starts, ends, strict=True)
    ]


def drawable(
    found: Iterable[Stretch], start_ms: int, end_ms: int
) -> tuple[tuple[Stretch, ...], int]:
    """At most one stretch per column: the one that held the longest in it; and how many are left.

    Few stretches stay as they are.
    """
    listed = list(found)
    if len(listed) <= COLUMNS:
        return tuple(listed), 0
    width = max(end_ms - start_ms, 1) / COLUMNS
    held: list[dict[int, float]] = [{} for _ in range(COLUMNS)]
    for one in listed:
        low = max(int((one.start_ms - start_ms) / width), 0)
        high = min(int((one.end_ms - start_ms) / width), COLUMNS - 1)
        for column in range(low, high + 1):
            left = start_ms + column * width
            time = min(one.end_ms, left + width) - max(one.start_ms, left)
            held[column][one.value] = held[column].get(one.value, 0.0) + time
    shown: list[Stretch] = []
    for column, times in enumerate(held):
        if not times:
            continue
        value = max(times, key=lambda each: times[each])
        left, right = (round(start_ms + (column + i) * width) for i in (0, 1))
        if shown and shown[-1].value == value and shown[-1].end_ms == left:
            left = shown.pop().start_ms
        shown.append(Stretch(left, right, value))
    return tuple(shown), len(listed) - len(shown)
