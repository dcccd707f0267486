"""The general decoder: one message at a time, whatever a device may send."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import quality, schema
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.core.errors import DecodeError
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine import payloads
from iiot_platform.engine.readings import NO_STATE, Bools, Ints, Readings, in_one

US_PER_MS = 1_000
_LONG_MS = 10**18
_CONTROL = frozenset(map(chr, (*range(32), 127)))


COLUMNS: Final = ("offset", "topic", "payload", "received_ts", "source_ts", "quality")
"""What of a record is decoded."""


@dataclass(frozen=True)
class Messages:
    """Captured records as columns of equal length.

    Attributes:
        offset: offset in the line's log.
        topics: the topics that occur.
        topic: index into `topics`.
        texts: the payloads as one array.
        payloads: the same, one by one.
        payload_hash: hash of each.
        received: receive time, Unix ms.
        source: time at the source, Unix µs; `NO_STATE` where there is none.
        quality: OPC UA StatusCode.
    """

    offset: Ints
    topics: tuple[str, ...]
    topic: npt.NDArray[np.int32]
    texts: pa.BinaryArray
    payloads: list[bytes]
    payload_hash: npt.NDArray[np.uint64]
    received: Ints
    source: Ints
    quality: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.offset)

    @classmethod
    def of(cls, records: pa.Table) -> "Messages":
        """Records of the capture log (`capture_log.SEGMENT_SCHEMA`)."""
        topics = in_one(records.column("topic")).dictionary_encode()
        texts = in_one(records.column("payload"))
        payloads: list[bytes] = texts.to_pylist()
        return cls(
            offset=_ints(records, "offset"),
            topics=tuple(topics.dictionary.to_pylist()),
            topic=topics.indices.to_numpy(zero_copy_only=False).astype(np.int32),
            texts=texts,
            payloads=payloads,
            payload_hash=np.fromiter(
                map(xxhash.xxh3_64_intdigest, payloads), np.uint64, len(payloads)
            ),
            received=_ints(records, "received_ts") // US_PER_MS,
            source=_ints(records, "source_ts"),
            quality=records.column("quality").to_numpy().astype(np.uint32),
        )


@dataclass
class Columns:
    """Readings as they are found; what few of them have stands by their place."""

    keys: dict[SeriesKey, int] = field(default_factory=dict)
    row: list[int] = field(default_factory=list)
    series: list[int] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    sub: dict[int, int] = field(default_factory=dict)
    quality: dict[int, int] = field(default_factory=dict)
    state: dict[int, int] = field(default_factory=dict)
    pulse: dict[int, int] = field(default_factory=dict)

    def readings(self, messages: "Messages") -> Readings:
        """As readings; the rows are those of the messages."""
        row_of = np.array(self.row, np.int64)
        series = np.array(self.series, np.int32)
        widths = np.array([len(schema.VALUE_NAMES[key.kind]) for key in self.keys], np.int64)
        first = np.zeros(len(series) + 1, np.int64)
        np.cumsum(widths[series], out=first[1:])
        return Readings(
            keys=tuple(self.keys),
            series=series,
            ts=np.array(self.ts, np.int64),
            offset=messages.offset[row_of],
            sub=_filled(np.zeros(len(series), np.int16), self.sub),
            received=messages.received[row_of],
            topics=messages.topics,
            topic=messages.topic[row_of],
            quality=_filled(messages.quality[row_of], self.quality),
            state=_filled(np.full(len(series), NO_STATE, np.int64), self.state),
            pulse=_filled(np.full(len(series), -1, np.int8), self.pulse),
            first=first,
            values=np.array(self.values, np.float64),
            payload_hash=messages.payload_hash[row_of],
        )


class MessageDecoder:
    """Decodes message by message; what follows from a topic is worked out once."""

    def __init__(self, settings: LineSettings) -> None:
        self._line = settings.line
        self._prefix = settings.topic_prefix
        self._behind_ms = int(settings.max_lateness_s * MS_PER_S)
        self._ahead_ms = int(settings.max_future_s * MS_PER_S)
        self._places: dict[str, tuple[str, str]] = {}
        self._whole: dict[tuple[str, str, str], SeriesKey] = {}
        self._signals: dict[str, int] = {}
        self.misnamed = 0

    def add(
        self,
        columns: Columns,
        row: int,
        topic: str,
        payload: bytes,
        received: int,
        source_us: int,
        code: int,
    ) -> None:
        """Appends the readings of one message.

        Raises:
            DecodeError: the message goes to the quarantine; nothing was appended.
        """
        machine, device = self._place(topic)
        try:
            head, found = payloads.parse(payload)
        except DecodeError:
            nothing = None if quality.is_good(code) else payloads.without_value(payload)
            if nothing is None:
                raise
            head, found = nothing
        ts = head.TimeStamp
        if ts.__class__ is not int:
            ts, stamped = self._time(ts, received, source_us, code)
        else:
            stamped = code
        if not -self._behind_ms <= ts - received <= self._ahead_ms:
            raise out_of_time(ts - received)
        if not payloads.names_agree(head, self._line, machine, device):
            self.misnamed += 1
        begin = len(columns.ts)
        if found:
            self._add_values(columns, row, topic, ts, found)
        else:
            self._add_signal(columns, row, topic, ts, head.SensorValue)  # type: ignore[arg-type] # it is set
        if stamped != code:
            columns.quality |= dict.fromkeys(range(begin, len(columns.ts)), stamped)

    def _add_values(
        self,
        columns: Columns,
        row: int,
        topic: str,
        ts: int,
        found: Sequence[payloads.Values],
    ) -> None:
        machine, device = self._places[topic]
        keys = [self._key(topic, machine, device, values) for values in found]
        for sub, (key, values) in enumerate(zip(keys, found, strict=True)):
            place = len(columns.ts)
            columns.row.append(row)
            columns.series.append(columns.keys.setdefault(key, len(columns.keys)))
            columns.ts.append(ts)
            columns.values.extend(values.values)
            if sub:
                columns.sub[place] = sub
            if values.state is not None:
                columns.state[place] = values.state
            if values.pulse is not None:
                columns.pulse[place] = values.pulse

    def _add_signal(self, columns: Columns, row: int, topic: str, ts: int, value: float) -> None:
        series = self._signals.get(topic)
        if series is None:
            key = self.signal_key(topic)
            series = columns.keys.setdefault(key, len(columns.keys))
            self._signals[topic] = series
        columns.row.append(row)
        columns.series.append(series)
        columns.ts.append(ts)
        columns.values.append(value)

    def signal_key(self, topic: str) -> SeriesKey:
        """The series of a topic's signals.

        Raises:
            DecodeError: the topic is none of the line's.
        """
        return SeriesKey(schema.SIGNAL, *self._place(topic))

    def in_time(self, ts: Ints, received: Ints) -> Bools:
        """Which messages are neither too old nor ahead of their receive time."""
        ahead = ts - received
        return (ahead >= -self._behind_ms) & (ahead <= self._ahead_ms)

    def is_misnamed(self, topic: str, head: payloads.Payload) -> bool:
        """True where a name inside the payload differs from the topic's."""
        return not payloads.names_agree(head, self._line, *self._place(topic))

    def _place(self, topic: str) -> tuple[str, str]:
        """Machine and device of a topic."""
        place = self._places.get(topic)
        if place is None:
            place = self._places[topic] = self._split(topic)
        return place

    def _split(self, topic: str) -> tuple[str, str]:
        machine, found, device = topic.removeprefix(self._prefix).partition("/")
        if not topic.startswith(self._prefix) or not found or not machine or not device:
            raise DecodeError("bad_topic", f"'{topic}' is not {self._prefix}<machine>/<device>")
        check_name(topic)
        return machine, device

    def _time(
        self, stamp: float | None, received: int, source_us: int, code: int
    ) -> tuple[int, int]:
        """Event time and quality of a message whose time is not a plain integer."""
        if stamp is not None:
            if not math.isfinite(stamp):
                raise DecodeError("wrong_type", "TimeStamp is not finite")
            return int(stamp), code
        if source_us != NO_STATE:
            return source_us // US_PER_MS, code
        return received, code | quality.GOOD_RECEIVE_TIME

    def _key(self, topic: str, machine: str, device: str, values: payloads.Values) -> SeriesKey:
        name = (topic, values.kind, values.field or values.operation)
        key = self._whole.get(name)
        if key is None:
            if values.field:
                check_name(values.field)
                device = f"{device}.{values.field}"
            key = self._whole[name] = SeriesKey(values.kind, machine, device, values.operation)
        return key


def out_of_time(ahead_ms: int) -> DecodeError:
    """Why a message whose time is so far ahead of its receipt is set aside."""
    if ahead_ms > 0:
        return DecodeError("in_future", f"{_seconds(ahead_ms)} ahead of its receive time")
    return DecodeError("too_old", f"{_seconds(-ahead_ms)} behind its receive time")


def _seconds(ms: int) -> str:
    return f"{min(ms, _LONG_MS) / MS_PER_S:.3g} s"  # a time may have hundreds of digits


def check_name(name: str) -> None:
    """Refuses a name that could not be shown.

    Raises:
        DecodeError: it has control characters.
    """
    if not _CONTROL.isdisjoint(name):
        raise DecodeError("bad_name", f"{name!r:.80} has control characters")


def _filled(array: npt.NDArray[Any], found: Mapping[int, int]) -> npt.NDArray[Any]:
    """The array with what was found at some places."""
    if found:
        array[list(found)] = list(found.values())
    return array


def _ints(records: pa.Table, name: str) -> Ints:
    column = in_one(records.column(name).cast(pa.int64()).fill_null(NO_STATE))
    array: Ints = column.to_numpy(zero_copy_only=False)
    return array
