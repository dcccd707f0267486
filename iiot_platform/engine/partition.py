"""The partition function: readings of one line and hour in, rows, states and activity out.

It is pure. Called once with an hour's readings, or piece by piece with the states handed on, it
gives the same rows and the same last states bit for bit.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import quality, schema
from iiot_platform.core.clock import MS_PER_S, hour_of, hour_start_ms
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.activity import (
    Part,
    activity_of,
    merge,
    outcome_activity,
    readings_activity,
)
from iiot_platform.engine.readings import NO_STATE, Bools, Ints, Readings
from iiot_platform.engine.series.outcome import (
    Outcome,
    RunningTime,
    SeriesRows,
    TableRows,
)
from iiot_platform.engine.series.registry import COMPUTATIONS


@dataclass(frozen=True)
class SeriesState:
    """Where a series stands: its state, and the last event time behind it (Unix ms)."""

    blob: bytes
    frontier: int

    @property
    def hash(self) -> str:
        """Names the state that can influence later rows (16 hex digits)."""
        return hashlib.blake2b(self.blob, digest_size=8).hexdigest()


@dataclass(frozen=True)
class HourRows:
    """What a piece of an hour became; `NO_ROWS` where there was none.

    Attributes:
        tables: rows per table, `readings` included, provenance left out; series by series.
        activity: rows of `activity`.
        states: the state of each series that had readings.
        counts: `duplicates` (left out), `conflicts` (same time, another payload).
    """

    tables: dict[str, pa.Table]
    activity: pa.Table
    states: dict[SeriesKey, SeriesState]
    counts: Counter[str]


NO_ROWS: Final = HourRows({}, activity_of(()), {}, Counter())


def split_hours(readings: Readings) -> Iterator[tuple[int, Readings]]:
    """The readings of each hour that occurs, oldest hour first."""
    hours = hour_of_each(readings.ts)
    if len(hours) and hours.min() == hours.max():
        yield int(hours[0]), readings
        return
    for hour in np.unique(hours):
        yield int(hour), readings.take(hours == hour)


def hour_of_each(ts: Ints) -> Ints:
    """The hour of each event time."""
    return ts // hour_start_ms(1)


def compute(
    readings: Readings, states: Mapping[SeriesKey, bytes], settings: LineSettings
) -> HourRows:
    """Computes readings of one hour, in whatever order they stand.

    Args:
        readings: of one line and one hour.
        states: the state of each series before its first reading here; none: it starts.
        settings: those assigned to the hour.
    """
    if not len(readings):
        return NO_ROWS
    counts: Counter[str] = Counter()
    ordered, stands = order(readings, counts)
    good = ordered.quality >> 30 == quality.GOOD
    lateness = ordered.received - ordered.ts
    late = _late(ordered, settings)
    outcomes: list[tuple[SeriesKey, Outcome]] = []
    activity: list[Part] = []
    after: dict[SeriesKey, SeriesState] = {}
    for key, begin, end in _series_slices(ordered):
        rows = _series_rows(ordered, begin, end, stands, good)
        outcome = COMPUTATIONS[key.kind](key, states.get(key), rows, settings)
        outcomes.append((key, outcome))
        after[key] = SeriesState(outcome.state, int(rows.ts[-1]))
        running = _within(outcome.running, hour_of(int(rows.ts[0])))
        activity.extend(outcome_activity(key, outcome, running))
    tables = _assemble(settings.line, outcomes)
    tables[schema.READINGS.name] = ordered.to_table()
    if late.any():
        tables[schema.LATE_ROWS.name] = _late_rows(ordered.take(late))
    received = readings_activity(ordered.keys, ordered.series, ordered.ts, lateness, late)
    return HourRows(tables, merge([received, activity_of(activity)]), after, counts)


def _late(readings: Readings, settings: LineSettings) -> Bools:
    """Which readings were received after their hour had ended and the grace was over.

    A property of the row, never of when it was computed.
    """
    ends = (hour_of_each(readings.ts) + 1) * hour_start_ms(1)
    late: Bools = readings.received >= ends + round(settings.settle_grace_s * MS_PER_S)
    return late


def _late_rows(late: Readings) -> pa.Table:
    series = pa.array([key.text for key in late.keys], pa.string())
    return pa.table(
        {
            "ts": pa.array(late.ts).cast(schema.TS),
            "offset": pa.array(late.offset),
            "received_ts": pa.array(late.received).cast(schema.TS),
            "topic": pa.array(late.topics, pa.string()).take(pa.array(late.topic)),
            "series": series.take(pa.array(late.series)),
            "lateness_s": pa.array((late.received - late.ts) / MS_PER_S),
        }
    )


def order(readings: Readings, counts: Counter[str]) -> tuple[Readings, Bools]:
    """Series by series in (ts, offset) order, duplicates left out; and which rows stand.

    Equal topic, time and payload: the first offset counts. Another payload at the same time:
    all stay, the highest offset stands in tables.
    """
    names = sorted(range(len(readings.keys)), key=lambda i: readings.keys[i].text)
    rank = np.empty(len(names), np.int64)
    rank[names] = np.arange(len(names))
    ordered = _ordered(readings, rank[readings.series])
    same = (ordered.series[1:] == ordered.series[:-1]) & (ordered.ts[1:] == ordered.ts[:-1])
    if same.any():
        ordered = ordered.take(_first_of_each_payload(ordered, same))
        counts["duplicates"] += len(readings) - len(ordered)
        same = (ordered.series[1:] == ordered.series[:-1]) & (ordered.ts[1:] == ordered.ts[:-1])
        counts["conflicts"] += int(same.sum())
    return ordered, np.append(~same, np.ones(min(len(ordered), 1), np.bool_))


def _ordered(readings: Readings, rank: Ints) -> Readings:
    """By rank of the series, event time and offset.

    Most readings come in order within their series; then it is enough to part the series.
    """
    small = len(readings.keys) <= np.iinfo(np.int16).max
    ordered = readings.take(np.argsort(rank.astype(np.int16) if small else rank, kind="stable"))
    same = ordered.series[1:] == ordered.series[:-1]
    later, further = np.diff(ordered.ts), np.diff(ordered.offset)
    if (same & ((later < 0) | ((later == 0) & (further < 0)))).any():
        return readings.take(np.lexsort((readings.offset, readings.ts, rank)))
    return ordered


def _first_of_each_payload(ordered: Readings, same: Bools) -> Bools:
    keep = np.ones(len(ordered), np.bool_)
    group = np.concatenate(([0], np.cumsum(~same)))
    seen: set[tuple[int, int, int, int]] = set()
    crowded = np.flatnonzero(np.append(same, [False]) | np.insert(same, 0, [False]))
    for row in crowded:
        mark = (
            int(group[row]),
            int(ordered.topic[row]),
            int(ordered.payload_hash[row]),
            int(ordered.sub[row]),  # a message may have several readings of one moment
        )
        keep[row] = mark not in seen
        seen.add(mark)
    return keep


def _series_slices(ordered: Readings) -> Iterator[tuple[SeriesKey, int, int]]:
    starts = np.flatnonzero(np.diff(ordered.series, prepend=-1))
    ends = [*starts[1:].tolist(), len(ordered)]
    for begin, end in zip(starts.tolist(), ends, strict=True):
        yield ordered.keys[ordered.series[begin]], begin, end


def _series_rows(ordered: Readings, begin: int, end: int, stands: Bools, good: Bools) -> SeriesRows:
    """The rows of a series that stand; views where all do."""
    key = ordered.keys[ordered.series[begin]]
    values = ordered.values[ordered.first[begin] : ordered.first[end]]
    every = SeriesRows(
        ts=ordered.ts[begin:end],
        good=good[begin:end],
        values=values.reshape(end - begin, len(schema.VALUE_NAMES[key.kind])),
        state=ordered.state[begin:end],
        pulse=ordered.pulse[begin:end],
    )
    standing = stands[begin:end]
    return every if standing.all() else every.take(standing)


def _within(running: RunningTime | None, hour: int) -> RunningTime | None:
    """The running time of the hour itself; what came before it stays unknown."""
    if running is None:
        return None
    inside = running.interval >= hour_start_ms(hour)
    return RunningTime(*(column[inside] for column in running))


_NAME_TAGS: Final = {"sensor_name", "state_name", "device_name"}


def _assemble(line: str, outcomes: list[tuple[SeriesKey, Outcome]]) -> dict[str, pa.Table]:
    """The rows of all series, table by table, tags filled in."""
    rows: dict[str, list[tuple[SeriesKey, TableRows]]] = defaultdict(list)
    for key, outcome in outcomes:
        for part in outcome.tables:
            if len(part.ts):
                rows[part.table].append((key, part))
    return {name: _table(schema.TABLES[name], line, parts) for name, parts in rows.items()}


def _table(table: schema.Table, line: str, parts: list[tuple[SeriesKey, TableRows]]) -> pa.Table:
    lengths = [len(part.ts) for _, part in parts]
    columns: dict[str, pa.Array] = {}
    for column in table.columns:
        if column.role == "provenance":
            continue
        if column.role == "time":
            times = np.concatenate([part.ts for _, part in parts])
            columns[column.name] = pa.array(times).cast(column.type)
        elif column.role == "tag":
            columns[column.name] = _tag(column.name, line, [key for key, _ in parts], lengths)
        else:
            values = np.concatenate([part.fields[column.name] for _, part in parts])
            columns[column.name] = _field(column, values)
    return pa.table(columns)


def _tag(name: str, line: str, keys: list[SeriesKey], lengths: list[int]) -> pa.Array:
    if name == "line_name":
        names = [line for _ in keys]
    elif name == "machine_name":
        names = [key.machine for key in keys]
    elif name in _NAME_TAGS:
        names = [key.name for key in keys]
    else:
        names = [key.operation for key in keys]
    codes = np.repeat(np.arange(len(keys), dtype=np.int32), lengths)
    return pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string())).cast(pa.string())


def _field(
    column: schema.Column, values: "np.ndarray[tuple[int], np.dtype[np.generic]]"
) -> pa.Array:
    if column.nullable and values.dtype.kind == "f":
        return pa.array(values, from_pandas=True).cast(column.type)
    if column.nullable and values.dtype.kind == "i":
        return pa.array(values, mask=values == NO_STATE).cast(column.type)
    return pa.array(values).cast(column.type)
