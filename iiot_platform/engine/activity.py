"""What each series did in each 10 s, in whole numbers, and the line's summary of it.

Whole milliseconds and counts add up exactly in any order, so that many batches give the same
summary as one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.payloads import Gap
from iiot_platform.engine.readings import Bools, Ints
from iiot_platform.engine.series.outcome import Outcome, RunningTime

_COUNTS = (
    *("readings", "lateness_sum_ms", "anomalies", "quarantined", "late"),
    *("state_changes", "running_ms", "known_ms", "missing_ms"),
)
_MAX = "lateness_max_ms"
_NO_LATENESS = np.iinfo(np.int64).min
_NONE = np.zeros(0, np.int64)
NO_SERIES = ""
"""Stands, where series are named, for what belongs to the line alone."""


def interval_of(ts: Ints) -> Ints:
    """The start of the summary interval of each event time."""
    return ts - ts % schema.SUMMARY_INTERVAL_MS


class Part(NamedTuple):
    """Some counts of one series, by interval; other counts are 0."""

    series: str
    at: Ints
    counts: dict[str, Ints]


def readings_activity(
    keys: Sequence[SeriesKey],
    series: npt.NDArray[np.int32],
    ts: Ints,
    lateness: Ints,
    late: Bools,
) -> pa.Table:
    """Activity of readings themselves, not merged yet.

    Args:
        keys: the series that occur.
        series: of each reading, index into `keys`; at least one reading.
        ts: event times; those of one series beside each other, best in order.
        lateness: of each reading, ms.
        late: which readings came late.
    """
    intervals = interval_of(ts)
    new = (np.diff(intervals) != 0) | (np.diff(series) != 0)
    begin = np.flatnonzero(np.concatenate(([True], new)))
    counts = {
        "readings": np.diff(begin, append=len(ts)),
        "lateness_sum_ms": np.add.reduceat(lateness, begin),
        "late": np.add.reduceat(late.astype(np.int64), begin),
        _MAX: np.maximum.reduceat(lateness, begin),
    }
    return _rows(intervals[begin], series[begin], [key.text for key in keys], counts)


def outcome_activity(key: SeriesKey, outcome: Outcome, running: RunningTime | None) -> list[Part]:
    """Activity of what the readings of one series became, not merged yet.

    Args:
        key: the series.
        outcome: what they became.
        running: running time within the hour, where the series has states.
    """
    parts = []
    for name, times in (("anomalies", outcome.anomalies), ("state_changes", outcome.changes)):
        if len(times):
            when, count = np.unique(interval_of(times), return_counts=True)
            parts.append(Part(key.text, when, {name: count}))
    if running is not None and len(running.interval):
        spent = {"running_ms": running.running_ms, "known_ms": running.known_ms}
        parts.append(Part(key.text, running.interval, spent))
    return parts


def quarantine_activity(reason: str, received: Ints) -> pa.Table:
    """Activity of messages that were set aside for a reason, by receive time."""
    at, count = np.unique(interval_of(received), return_counts=True)
    return activity_of([Part(reason, at, {"quarantined": count})])


def gap_activity(gaps: Sequence[Gap], received: Ints) -> pa.Table:
    """Activity of gaps, by the time at which they were written.

    A gap whose source had all of it in its history is written a second time, and counts back.
    """
    at, index = np.unique(interval_of(received), return_inverse=True)
    missing = np.zeros(len(at), np.int64)
    np.add.at(missing, index, [_missing_ms(gap) for gap in gaps])
    counts = {"quarantined": np.bincount(index, minlength=len(at)), "missing_ms": missing}
    return activity_of([Part(schema.GAP, at, counts)])


def _missing_ms(gap: Gap) -> int:
    if gap.filled is None:
        return gap.end_ms - gap.begin_ms
    return gap.begin_ms - gap.end_ms if gap.complete else 0


def activity_of(parts: Sequence[Part]) -> pa.Table:
    """All parts as rows, not merged yet."""
    lengths = [len(part.at) for part in parts]
    ends = np.cumsum([0, *lengths])
    counts: dict[str, Ints] = {}
    for part, begin, end in zip(parts, ends[:-1], ends[1:], strict=True):
        for name, values in part.counts.items():
            if name not in counts:
                counts[name] = _nothing(name, int(ends[-1]))
            counts[name][begin:end] = values
    return _rows(
        np.concatenate([_NONE, *(part.at for part in parts)]),
        np.repeat(np.arange(len(parts), dtype=np.int32), lengths),
        [part.series for part in parts],
        counts,
    )


def _rows(
    at: Ints, codes: npt.NDArray[np.int32], series: Sequence[str], counts: Mapping[str, Ints]
) -> pa.Table:
    """Rows of `activity`, without provenance; `codes` are indices into `series`."""
    columns = {
        name: pa.array(counts[name] if name in counts else _nothing(name, len(at)), pa.int64())
        for name in (*_COUNTS, _MAX)
    }
    names = pa.DictionaryArray.from_arrays(codes, pa.array(series, pa.string())).cast(pa.string())
    return pa.table({"ts": pa.array(at).cast(schema.TS), "series": names, **columns}).select(
        _names()
    )


def _nothing(name: str, rows: int) -> Ints:
    return np.full(rows, _NO_LATENESS if name == _MAX else 0, np.int64)


def data_quality(line: str, activity: pa.Table) -> pa.Table:
    """Rows of `data_quality` of one hour's activity, provenance left out."""
    set_aside = activity.filter(pc.greater(activity.column("quarantined"), 0))
    late = activity.filter(pc.greater(activity.column("late"), 0))
    late = late.group_by("ts", use_threads=False).aggregate([("late", "sum")])
    parts = [
        (set_aside.column("ts"), set_aside.column("series"), set_aside.column("quarantined")),
        (late.column("ts"), pa.repeat(schema.LATE, len(late)), late.column("late_sum")),
    ]
    return pa.concat_tables(
        pa.table(
            {
                "ts": at,
                "line_name": pa.repeat(line, len(at)),
                "reason": reason,
                "count": count,
            }
        )
        for at, reason, count in parts
    ).sort_by([("ts", "ascending"), ("reason", "ascending")])


def merge(parts: Iterable[pa.Table]) -> pa.Table:
    """The sum of activities, one row per (interval, series), in that order."""
    rows = pa.concat_tables([activity_of(()), *parts]).group_by(["ts", "series"], use_threads=False)
    merged = rows.aggregate([*((name, "sum") for name in _COUNTS), (_MAX, "max")])
    names = {f"{name}_sum": name for name in _COUNTS} | {f"{_MAX}_max": _MAX}
    merged = merged.rename_columns([names.get(name, name) for name in merged.column_names])
    return merged.select(_names()).sort_by([("ts", "ascending"), ("series", "ascending")])


def summarise(line: str, activity: pa.Table) -> pa.Table:
    """Rows of `line_summary` of one hour's activity, provenance left out.

    A share of nothing is 0: `known_share` tells how much `running_share` rests on.
    """
    ts = activity.column("ts").cast(pa.int64()).to_numpy()
    at, index = np.unique(ts, return_inverse=True)

    def total(name: str) -> Ints:
        sums = np.zeros(len(at), np.int64)
        np.add.at(sums, index, activity.column(name).to_numpy())
        return sums

    gaps = pc.equal(activity.column("series"), schema.GAP).to_numpy(zero_copy_only=False)
    set_aside = np.zeros(len(at), np.int64)
    np.add.at(set_aside, index[~gaps], activity.column("quarantined").to_numpy()[~gaps])
    readings = total("readings")
    counted = activity.column("readings").to_numpy() > 0
    latest = np.full(len(at), _NO_LATENESS, np.int64)
    np.maximum.at(latest, index[counted], activity.column(_MAX).to_numpy()[counted])
    known = total("known_ms")
    series = activity.column("series").unique()
    states = pc.sum(pc.starts_with(series, f"{schema.STATE}/")).as_py() or 0
    possible = max(states, 1) * schema.SUMMARY_INTERVAL_MS
    return pa.table(
        {
            "ts": pa.array(at).cast(schema.TS),
            "line_name": pa.repeat(line, len(at)),
            "readings": readings,
            "devices": np.bincount(index[counted], minlength=len(at)),
            "lateness_mean_s": total("lateness_sum_ms") / np.maximum(readings, 1) / MS_PER_S,
            "lateness_max_s": np.where(readings > 0, latest, 0) / MS_PER_S,
            "anomalies": total("anomalies"),
            "quarantined": set_aside,
            "state_changes": total("state_changes"),
            "running_share": total("running_ms") / np.maximum(known, 1),
            "known_share": known / possible,
            "missing_s": total("missing_ms") / MS_PER_S,
        }
    )


def _names() -> list[str]:
    return [name for name in schema.ACTIVITY.arrow.names if name not in _PROVENANCE]


_PROVENANCE = schema.ACTIVITY.names("provenance")
