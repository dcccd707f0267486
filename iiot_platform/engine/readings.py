"""Readings as columns: the form in which they are decoded, ordered, stored and read back."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from iiot_platform.core import schema
from iiot_platform.core.names import SeriesKey

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NO_STATE = np.iinfo(np.int64).min
"""Stands in `state` where a reading has none; no state value may be it."""


@dataclass(frozen=True)
class Readings:
    """Decoded readings of one line, one entry per (message, series); all arrays of length n.

    Attributes:
        keys: the series that occur.
        series: index into `keys`.
        ts: event time, Unix ms.
        offset: offset of the message in the line's log.
        sub: place within the message.
        received: receive time, Unix ms.
        topics: the topics that occur.
        topic: index into `topics`.
        quality: OPC UA StatusCode.
        state: state value, `NO_STATE` where the kind has none.
        pulse: SynchPulse; -1 where the kind has none.
        first: where the reading's values start in `values`; n + 1 entries.
        values: values of all readings, in the order of `schema.VALUE_NAMES` of their kind.
        payload_hash: hash of the payload bytes.
    """

    keys: tuple[SeriesKey, ...]
    series: npt.NDArray[np.int32]
    ts: Ints
    offset: Ints
    sub: npt.NDArray[np.int16]
    received: Ints
    topics: tuple[str, ...]
    topic: npt.NDArray[np.int32]
    quality: npt.NDArray[np.uint32]
    state: Ints
    pulse: npt.NDArray[np.int8]
    first: Ints
    values: Floats
    payload_hash: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.ts)

    @classmethod
    def empty(cls) -> "Readings":
        """No readings."""
        return _EMPTY

    def take(self, rows: Ints | Bools) -> "Readings":
        """The readings at these places, in this order (or where a mask is true)."""
        index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        starts = self.first[:-1][index]
        lengths = self.first[1:][index] - starts
        first = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
        places = np.repeat(starts - first[:-1], lengths) + np.arange(first[-1])
        return Readings(
            keys=self.keys,
            series=self.series[index],
            ts=self.ts[index],
            offset=self.offset[index],
            sub=self.sub[index],
            received=self.received[index],
            topics=self.topics,
            topic=self.topic[index],
            quality=self.quality[index],
            state=self.state[index],
            pulse=self.pulse[index],
            first=first,
            values=self.values[places],
            payload_hash=self.payload_hash[index],
        )

    def with_keys_in_order(self) -> "Readings":
        """The same readings, their keys those that occur, in the order in which they do."""
        occurs = np.full(len(self.keys), len(self), np.int64)
        occurs[self.series[::-1]] = np.arange(len(self))[::-1]
        order = np.argsort(occurs)[: np.count_nonzero(occurs < len(self))]
        rank = np.zeros(len(occurs), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        keys = tuple(self.keys[code] for code in order)
        return replace(self, keys=keys, series=rank[self.series])

    def to_table(self) -> pa.Table:
        """As rows of the table `readings`, without provenance."""
        keys = self.keys
        pulse = pa.array(self.pulse == 1, mask=self.pulse < 0)
        columns = {
            "ts": pa.array(self.ts).cast(schema.TS),
            "offset": pa.array(self.offset),
            "sub": pa.array(self.sub),
            "received_ts": pa.array(self.received).cast(schema.TS),
            "topic": _names(self.topic, list(self.topics)),
            "machine_name": _names(self.series, [key.machine for key in keys]),
            "kind": _names(self.series, [key.kind for key in keys]),
            "name": _names(self.series, [key.name for key in keys]),
            "operation": _names(self.series, [key.operation for key in keys]),
            "quality": pa.array(self.quality),
            "state": pa.array(self.state, mask=self.state == NO_STATE),
            "pulse": pulse,
            "values": pa.ListArray.from_arrays(
                pa.array(self.first.astype(np.int32)), pa.array(self.values)
            ),
            "payload_hash": pa.array(self.payload_hash),
        }
        return pa.table(columns).cast(schema.READINGS.content)

    @classmethod
    def from_table(cls, table: pa.Table) -> "Readings":
        """Readings from rows of the table `readings`; provenance is left out."""
        rows = table.select(schema.READINGS.content.names).combine_chunks()
        parts = [
            rows.column(name).combine_chunks().dictionary_encode()
            for name in ("kind", "machine_name", "name", "operation")
        ]
        keys, series = _series(parts, len(rows))
        topic = rows.column("topic").combine_chunks().dictionary_encode()
        values = rows.column("values").combine_chunks()
        lengths = values.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        return cls(
            keys=keys,
            series=series,
            ts=_ms(rows.column("ts")),
            offset=_numpy(rows.column("offset")),
            sub=_numpy(rows.column("sub")),
            received=_ms(rows.column("received_ts")),
            topics=tuple(topic.dictionary.to_pylist()),
            topic=topic.indices.to_numpy(zero_copy_only=False).astype(np.int32),
            quality=_numpy(rows.column("quality")),
            state=_numpy(rows.column("state").fill_null(NO_STATE)),
            pulse=_numpy(rows.column("pulse").cast(pa.int8()).fill_null(-1)),
            first=np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths))),
            values=values.flatten().to_numpy(zero_copy_only=False),
            payload_hash=_numpy(rows.column("payload_hash")),
        )


def concat(parts: list[Readings]) -> Readings:
    """All readings of all parts, in the order of the parts."""
    filled = [part for part in parts if len(part)]
    if len(filled) == 1:
        return filled[0]
    if not filled:
        return Readings.empty()
    keys: dict[SeriesKey, int] = {}
    topics: dict[str, int] = {}
    series, topic = [], []
    for part in filled:
        codes = np.array([keys.setdefault(key, len(keys)) for key in part.keys], np.int32)
        series.append(codes[part.series])
        names = np.array([topics.setdefault(name, len(topics)) for name in part.topics], np.int32)
        topic.append(names[part.topic])
    starts = np.cumsum([0, *(len(part.values) for part in filled[:-1])])
    return Readings(
        keys=tuple(keys),
        series=np.concatenate(series),
        ts=np.concatenate([part.ts for part in filled]),
        offset=np.concatenate([part.offset for part in filled]),
        sub=np.concatenate([part.sub for part in filled]),
        received=np.concatenate([part.received for part in filled]),
        topics=tuple(topics),
        topic=np.concatenate(topic),
        quality=np.concatenate([part.quality for part in filled]),
        state=np.concatenate([part.state for part in filled]),
        pulse=np.concatenate([part.pulse for part in filled]),
        first=np.concatenate(
            [np.zeros(1, np.int64)]
            + [part.first[1:] + start for part, start in zip(filled, starts, strict=True)]
        ),
        values=np.concatenate([part.values for part in filled]),
        payload_hash=np.concatenate([part.payload_hash for part in filled]),
    )


def _names(codes: npt.NDArray[np.int32], names: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names, pa.string())).cast(
        pa.string()
    )


def _ms(column: pa.ChunkedArray) -> Ints:
    return _numpy(column.cast(pa.int64()))


def in_one(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece; copied only where it is in several."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _numpy(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = in_one(column).to_numpy(zero_copy_only=False)
    return array


def _series(
    parts: list[pa.DictionaryArray], rows: int
) -> tuple[tuple[SeriesKey, ...], npt.NDArray[np.int32]]:
    """The distinct series of four dictionary-encoded columns, and each row's index."""
    code = np.zeros(rows, np.int64)
    for part in parts:
        code = code * max(len(part.dictionary), 1) + part.indices.to_numpy(zero_copy_only=False)
    _, at, series = np.unique(code, return_index=True, return_inverse=True)
    names = [part.dictionary.to_pylist() for part in parts]
    indices = [part.indices.to_numpy(zero_copy_only=False) for part in parts]
    keys = tuple(SeriesKey(*(names[i][indices[i][row]] for i in range(len(parts)))) for row in at)
    return keys, series.astype(np.int32).reshape(-1)


_EMPTY = Readings.from_table(schema.READINGS.content.empty_table())
