"""From captured records to readings, or to the quarantine with a reason."""

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import quality, schema
from iiot_platform.core.capture_log import GAP_TOPIC
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.core.errors import DecodeError
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine import payloads
from iiot_platform.engine.readings import NO_STATE, Ints, Readings

_US_PER_MS = 1_000
_DETAIL_LENGTH = 200
_LONG_MS = 10**18
_CONTROL = frozenset(map(chr, (*range(32), 127)))


@dataclass(frozen=True)
class Quarantined:
    """One message that was set aside; times in Unix ms.

    `claimed` is the event time that it would have under settings that accept it: a rerun of that
    hour looks at it again.
    """

    offset: int
    topic: str
    payload: bytes
    received: int
    claimed: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Decoded:
    """What a range of the log says: readings, what was set aside, and names that disagree."""

    readings: Readings
    quarantine: tuple[Quarantined, ...]
    misnamed: int

    @property
    def reasons(self) -> Counter[str]:
        """Messages set aside, by reason; gaps are no messages."""
        return Counter(e.reason for e in self.quarantine if e.reason != schema.GAP)


@dataclass
class _Columns:
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


def decode(records: pa.Table, settings: LineSettings) -> Decoded:
    """Decodes records of the capture log (`capture_log.SEGMENT_SCHEMA`) under a line's settings.

    Pure: the same records and settings give the same readings, whenever and in whatever cuts.
    """
    decoder = _Decoder(settings)
    topics = records.column("topic").combine_chunks().dictionary_encode()
    names: list[str] = topics.dictionary.to_pylist()
    topic_of = topics.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    offsets = _ints(records, "offset")
    received = _ints(records, "received_ts") // _US_PER_MS
    sources = _ints(records, "source_ts")
    raw: list[bytes] = records.column("payload").to_pylist()
    codes = records.column("quality").to_numpy()
    columns = _Columns()
    quarantine: list[Quarantined] = []
    for row, (topic, payload, at, source, code) in enumerate(
        zip(
            topic_of.tolist(), raw, received.tolist(), sources.tolist(), codes.tolist(), strict=True
        )
    ):
        try:
            decoder.add(columns, row, names[topic], payload, at, source, code)
        except DecodeError as error:
            quarantine.append(
                Quarantined(
                    int(offsets[row]),
                    names[topic],
                    payload,
                    at,
                    _claimed(payload, at, source),
                    _reason(names[topic], payload, code, error),
                    error.detail[:_DETAIL_LENGTH],
                )
            )
    row_of = np.array(columns.row, np.int64)
    series = np.array(columns.series, np.int32)
    widths = np.array([len(schema.VALUE_NAMES[key.kind]) for key in columns.keys], np.int64)
    first = np.zeros(len(series) + 1, np.int64)
    np.cumsum(widths[series], out=first[1:])
    hashes = np.array([xxhash.xxh3_64_intdigest(payload) for payload in raw], np.uint64)
    return Decoded(
        Readings(
            keys=tuple(columns.keys),
            series=series,
            ts=np.array(columns.ts, np.int64),
            offset=offsets[row_of],
            sub=_filled(np.zeros(len(series), np.int16), columns.sub),
            received=received[row_of],
            topics=tuple(names),
            topic=topic_of[row_of],
            quality=_filled(codes[row_of].astype(np.uint32), columns.quality),
            state=_filled(np.full(len(series), NO_STATE, np.int64), columns.state),
            pulse=_filled(np.full(len(series), -1, np.int8), columns.pulse),
            first=first,
            values=np.array(columns.values, np.float64),
            payload_hash=hashes[row_of],
        ),
        tuple(quarantine),
        decoder.misnamed,
    )


def _reason(topic: str, payload: bytes, code: int, error: DecodeError) -> str:
    """Why a record is set aside; a value that the server itself calls bad may be none at all."""
    if topic.startswith(GAP_TOPIC):
        with contextlib.suppress(DecodeError):
            payloads.gap_in(payload)
            return schema.GAP
    return error.reason if quality.is_good(code) else "bad_quality"


def _claimed(payload: bytes, received: int, source_us: int) -> int:
    claimed = payloads.claimed_time(payload)
    if claimed is not None:
        return claimed
    return received if source_us == NO_STATE else source_us // _US_PER_MS


def _filled(array: npt.NDArray[Any], found: Mapping[int, int]) -> npt.NDArray[Any]:
    """The array with what was found at some places."""
    if found:
        array[list(found)] = list(found.values())
    return array


def _ints(records: pa.Table, name: str) -> Ints:
    column = records.column(name).cast(pa.int64()).fill_null(NO_STATE).combine_chunks()
    array: Ints = column.to_numpy(zero_copy_only=False)
    return array


class _Decoder:
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
        columns: _Columns,
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
        place = self._places.get(topic)
        if place is None:
            place = self._places[topic] = self._place(topic)
        machine, device = place
        head, found = payloads.parse(payload)
        ts = head.TimeStamp
        if ts.__class__ is not int:
            ts, stamped = self._time(ts, received, source_us, code)
        else:
            stamped = code
        if not -self._behind_ms <= ts - received <= self._ahead_ms:
            raise _out_of_time(ts - received)
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
        columns: _Columns,
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

    def _add_signal(self, columns: _Columns, row: int, topic: str, ts: int, value: float) -> None:
        series = self._signals.get(topic)
        if series is None:
            key = SeriesKey(schema.SIGNAL, *self._places[topic])
            series = columns.keys.setdefault(key, len(columns.keys))
            self._signals[topic] = series
        columns.row.append(row)
        columns.series.append(series)
        columns.ts.append(ts)
        columns.values.append(value)

    def _place(self, topic: str) -> tuple[str, str]:
        """Machine and device of a topic."""
        machine, found, device = topic.removeprefix(self._prefix).partition("/")
        if not topic.startswith(self._prefix) or not found or not machine or not device:
            raise DecodeError("bad_topic", f"'{topic}' is not {self._prefix}<machine>/<device>")
        _check_name(topic)
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
            return source_us // _US_PER_MS, code
        return received, code | quality.GOOD_RECEIVE_TIME

    def _key(self, topic: str, machine: str, device: str, values: payloads.Values) -> SeriesKey:
        name = (topic, values.kind, values.field or values.operation)
        key = self._whole.get(name)
        if key is None:
            if values.field:
                _check_name(values.field)
                device = f"{device}.{values.field}"
            key = self._whole[name] = SeriesKey(values.kind, machine, device, values.operation)
        return key


def _out_of_time(ahead_ms: int) -> DecodeError:
    if ahead_ms > 0:
        return DecodeError("in_future", f"{_seconds(ahead_ms)} ahead of its receive time")
    return DecodeError("too_old", f"{_seconds(-ahead_ms)} behind its receive time")


def _seconds(ms: int) -> str:
    return f"{min(ms, _LONG_MS) / MS_PER_S:.3g} s"  # a time may have hundreds of digits


def _check_name(name: str) -> None:
    if not _CONTROL.isdisjoint(name):
        raise DecodeError("bad_name", f"{name!r:.80} has control characters")


QUARANTINE_REASONS = (
    "bad_name",
    "bad_quality",
    "bad_topic",
    "in_future",
    "missing_field",
    "no_values",
    "not_an_object",
    "not_finite",
    "not_json",
    "too_deep",
    "too_many_fields",
    "too_old",
    "unknown_operation",
    "wrong_type",
)
"""Every reason there is: a bounded set, since it becomes a tag."""


def quarantine_rows(entries: tuple[Quarantined, ...]) -> pa.Table:
    """As rows of the table `quarantine`, without provenance."""
    return pa.table(
        {
            "ts": pa.array([e.received for e in entries], pa.int64()).cast(schema.TS),
            "offset": pa.array([e.offset for e in entries], pa.int64()),
            "topic": pa.array([e.topic for e in entries], pa.string()),
            "payload": pa.array([e.payload for e in entries], pa.binary()),
            "reason": pa.array([e.reason for e in entries], pa.string()),
            "detail": pa.array([e.detail for e in entries], pa.string()),
        }
    )
