"""From captured records to readings, or to the quarantine with a reason."""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import xxhash

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import quality, schema
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.core.errors import DecodeError
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine import payloads
from iiot_platform.engine.readings import NO_STATE, Ints, Readings

_US_PER_MS = 1_000
_DETAIL_LENGTH = 200
_CONTROL = {chr(code): None for code in (*range(32), 127)}


@dataclass(frozen=True)
class Quarantined:
    """One message that was set aside; `received` in Unix ms."""

    offset: int
    topic: str
    payload: bytes
    received: int
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
        """Messages set aside, by reason."""
        return Counter(entry.reason for entry in self.quarantine)


@dataclass
class _Columns:
    keys: dict[SeriesKey, int] = field(default_factory=dict)
    row: list[int] = field(default_factory=list)
    series: list[int] = field(default_factory=list)
    sub: list[int] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    quality: list[int] = field(default_factory=list)
    state: list[int] = field(default_factory=list)
    pulse: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


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
    codes = records.column("quality").to_numpy().tolist()
    columns = _Columns()
    quarantine: list[Quarantined] = []
    for row, (topic, payload, at, source, code) in enumerate(
        zip(topic_of.tolist(), raw, received.tolist(), sources.tolist(), codes, strict=True)
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
                    error.reason,
                    error.detail[:_DETAIL_LENGTH],
                )
            )
    row_of = np.array(columns.row, np.int64)
    hashes = np.array([xxhash.xxh3_64_intdigest(payload) for payload in raw], np.uint64)
    return Decoded(
        Readings(
            keys=tuple(columns.keys),
            series=np.array(columns.series, np.int32),
            ts=np.array(columns.ts, np.int64),
            offset=offsets[row_of],
            sub=np.array(columns.sub, np.int16),
            received=received[row_of],
            topics=tuple(names),
            topic=topic_of[row_of],
            quality=np.array(columns.quality, np.uint32),
            state=np.array(columns.state, np.int64),
            pulse=np.array(columns.pulse, np.int8),
            first=np.concatenate(
                (np.zeros(1, np.int64), np.cumsum(np.array(columns.length, np.int64)))
            ),
            values=np.array(columns.values, np.float64),
            payload_hash=hashes[row_of],
        ),
        tuple(quarantine),
        decoder.misnamed,
    )


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
        ts, code = self._time(head.TimeStamp, received, source_us, code)
        if not payloads.names_agree(head, self._line, machine, device):
            self.misnamed += 1
        keys = [self._key(machine, device, values) for values in found]
        for sub, (key, values) in enumerate(zip(keys, found, strict=True)):
            columns.row.append(row)
            columns.series.append(columns.keys.setdefault(key, len(columns.keys)))
            columns.sub.append(sub)
            columns.ts.append(ts)
            columns.quality.append(code)
            columns.state.append(NO_STATE if values.state is None else values.state)
            columns.pulse.append(-1 if values.pulse is None else values.pulse)
            columns.length.append(len(values.values))
            columns.values.extend(values.values)

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
        """Event time and quality of a message."""
        if stamp is not None:
            if isinstance(stamp, float) and not math.isfinite(stamp):
                raise DecodeError("wrong_type", "TimeStamp is not finite")
            ts = int(stamp)
        elif source_us != NO_STATE:
            ts = source_us // _US_PER_MS
        else:
            return received, code | quality.GOOD_RECEIVE_TIME
        if ts - received > self._ahead_ms:
            raise DecodeError("in_future", f"{_seconds(ts - received)} ahead of its receive time")
        if received - ts > self._behind_ms:
            raise DecodeError("too_old", f"{_seconds(received - ts)} behind its receive time")
        return ts, code

    def _key(self, machine: str, device: str, values: payloads.Values) -> SeriesKey:
        if not values.field:
            return SeriesKey(values.kind, machine, device, values.operation)
        _check_name(values.field)
        return SeriesKey(values.kind, machine, f"{device}.{values.field}", values.operation)


def _seconds(ms: int) -> str:
    return f"{ms / MS_PER_S:.3g} s"


def _check_name(name: str) -> None:
    if any(character in _CONTROL for character in name):
        raise DecodeError("bad_name", f"{name!r:.80} has control characters")


QUARANTINE_REASONS = (
    "bad_name",
    "bad_topic",
    "in_future",
    "missing_field",
    "no_values",
    "not_an_object",
    "not_finite",
    "not_json",
    "too_deep",
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
