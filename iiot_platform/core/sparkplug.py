"""Sparkplug B on the wire: topics, payloads and data types, by the 3.0 specification.

Payloads are Protocol Buffers of one fixed shape. They are read here by hand: the shape is small,
the reader is typed, and whatever bytes come, it answers with a payload or with a `DecodeError`.
"""

import functools
import struct
from enum import IntEnum
from typing import Final, Literal, NamedTuple

from iiot_platform.core.errors import DecodeError

NAMESPACE: Final = "spBv1.0"
PREFIX: Final = f"{NAMESPACE}/"
Type = Literal["NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"]
NODE_TYPES: Final[tuple[Type, ...]] = ("NBIRTH", "NDATA", "NDEATH")
DEVICE_TYPES: Final[tuple[Type, ...]] = ("DBIRTH", "DDATA", "DDEATH")
_TYPES: Final[dict[str, Type]] = {name: name for name in (*NODE_TYPES, *DEVICE_TYPES)}
LIFECYCLE: Final = frozenset({"NBIRTH", "NDEATH", "DBIRTH", "DDEATH"})
"""Messages that say what later ones mean: births define, deaths end."""

REBIRTH: Final = "Node Control/Rebirth"
BD_SEQ: Final = "bdSeq"
SEQ_LIMIT: Final = 256
"""`seq` counts 0 to 255 and begins anew."""
NO_DATA: Final = (BD_SEQ, "Node Control/", "Device Control/")
"""Beginnings of metrics that steer a node and measure nothing."""

_TOPICS: Final = 4_096
_NODE_LEVELS: Final = 4
_DEVICE_LEVELS: Final = 5


class DataType(IntEnum):
    """Types of a metric that are read; arrays, data sets, files and templates are not."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATE_TIME = 13
    TEXT = 14
    UUID = 15


SIGNED: Final = {1: 8, 2: 16, 3: 32, 4: 64}
"""Signed integers by type, with their bits: they are sent as unsigned two's complement."""
UNSIGNED: Final = {5: 8, 6: 16, 7: 32, 8: 64}
INTEGERS: Final = frozenset({*SIGNED, *UNSIGNED})
FLOATS: Final = frozenset({DataType.FLOAT, DataType.DOUBLE})
TEXTS: Final = frozenset({DataType.STRING, DataType.DATE_TIME, DataType.TEXT, DataType.UUID})
LAST_SCALAR: Final = 15

Value = int | float | bool | str | None


class Topic(NamedTuple):
    """Where a message comes from; `device` is empty for the edge node itself."""

    group: str
    type: Type
    edge_node: str
    device: str = ""

    @property
    def node(self) -> str:
        """What names the edge node among all: `<group>/<edge node>`."""
        return f"{self.group}/{self.edge_node}"

    @property
    def name(self) -> str:
        """The node, and the device where it is one's."""
        return f"{self.node}/{self.device}" if self.device else self.node


@functools.lru_cache(_TOPICS)
def topic_of(topic: str) -> Topic | None:
    """What a topic says; None where it is none of a node's or device's births, data or deaths."""
    if not topic.startswith(PREFIX):
        return None
    levels = topic.split("/")
    kind = _TYPES.get(levels[2]) if len(levels) in {_NODE_LEVELS, _DEVICE_LEVELS} else None
    of_device = len(levels) == _DEVICE_LEVELS
    if kind is None or of_device != (kind in DEVICE_TYPES) or not all(levels):
        return None
    return Topic(levels[1], kind, levels[3], levels[4] if of_device else "")


class Metric(NamedTuple):
    """One value; what is not sent is None, times are Unix ms.

    Attributes:
        name: in births, and in data of nodes without aliases.
        alias: stands for the name in data.
        timestamp: when it was measured.
        datatype: number of its type; births always say it.
        historical: it was measured while nobody listened.
        null: it has no value.
        quality: the property `Quality`.
        value: as it was sent, integers unsigned; None also for what is no scalar.
        other: what was sent is a data set, a template, bytes or an extension.
    """

    name: str | None = None
    alias: int | None = None
    timestamp: int | None = None
    datatype: int | None = None
    historical: bool = False
    null: bool = False
    quality: int | None = None
    value: Value = None
    other: bool = False


class Payload(NamedTuple):
    """A message's content; `seq` is None where it is not counted (a death)."""

    timestamp: int | None
    metrics: tuple[Metric, ...]
    seq: int | None

    @property
    def bd_seq(self) -> int | None:
        """Which session of the node a birth or a death is of."""
        for metric in self.metrics:
            if metric.name == BD_SEQ and isinstance(metric.value, int):
                return metric.value
        return None


def number(datatype: int, value: Value) -> float | None:  # noqa: PLR0911 - one for each family
    """A numeric value as its type means it; None: it is none of that type.

    Signed integers are taken from as many low bits as their type has; not finite values stay.
    """
    if isinstance(value, str) or value is None:
        return None
    if datatype in FLOATS:
        return float(value)
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, int):
        return None
    bits = SIGNED.get(datatype)
    if bits is not None:
        low = value & ((1 << bits) - 1)
        return low - (1 << bits) if low >> (bits - 1) else low
    bits = UNSIGNED.get(datatype)
    if bits is not None:
        return value if value >> bits == 0 else None
    return value if datatype == DataType.BOOLEAN and value in {0, 1} else None


def decode(payload: bytes) -> Payload:
    """The content of a payload.

    Raises:
        DecodeError: the bytes are no Sparkplug payload.
    """
    try:
        return _payload(payload)
    except (IndexError, struct.error, UnicodeDecodeError, OverflowError) as error:
        raise DecodeError("not_sparkplug", f"cut short or garbled: {error}") from error


def rebirth_command(timestamp_ms: int) -> bytes:
    """The payload of an NCMD that asks an edge node for its births."""
    name = REBIRTH.encode()
    stamp = _encoded(timestamp_ms)
    metric = b"\x0a" + _encoded(len(name)) + name + b"\x18" + stamp + b"\x20\x0b\x70\x01"
    return b"\x08" + stamp + b"\x12" + _encoded(len(metric)) + metric


def rebirth_topic(group: str, edge_node: str) -> str:
    """Where it is published."""
    return f"{PREFIX}{group}/NCMD/{edge_node}"


_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_TOP_BIT: Final = 0x80
# fields of a metric as they stand on the wire: number and wire type
_NAME, _ALIAS, _TIMESTAMP, _DATATYPE, _HISTORICAL, _NULL = 0x0A, 0x10, 0x18, 0x20, 0x28, 0x38
_PROPERTIES, _FLOAT, _DOUBLE, _BOOLEAN, _STRING = 0x4A, 0x65, 0x69, 0x70, 0x7A
_INTEGERS: Final = frozenset({0x50, 0x58})
_NO_SCALARS: Final = frozenset(field << 3 | _LEN for field in (16, 17, 18, 19))
_LONGEST_VARINT: Final = 63
_MASK: Final = (1 << 64) - 1
_float: Final = struct.Struct("<f").unpack_from
_double: Final = struct.Struct("<d").unpack_from


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value >= _TOP_BIT:
        out.append(value & 0x7F | _TOP_BIT)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and the place behind it."""
    value = data[at]
    at += 1
    if value < _TOP_BIT:
        return value, at
    # the bit that says that the number goes on is left in, and taken off by the next byte
    byte = data[at]
    at += 1
    value += (byte - 1) << 7
    shift = 14
    while byte >= _TOP_BIT:
        byte = data[at]
        at += 1
        value += (byte - 1) << shift
        shift += 7
        if shift > _LONGEST_VARINT + 7:
            raise IndexError("a number of more than ten bytes")
    return value & _MASK, at


def _chunk(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Begin and end of what has a length in front."""
    length, at = _varint(data, at)
    if at + length > end:
        raise IndexError("a part is longer than what holds it")
    return at, at + length


def _skipped(data: bytes, at: int, end: int, wire: int) -> int:
    """The place behind a field that means nothing here."""
    if wire == _VARINT:
        return _varint(data, at)[1]
    if wire == _LEN:
        return _chunk(data, at, end)[1]
    if wire == _I64:
        return at + 8
    if wire == _I32:
        return at + 4
    raise IndexError(f"wire type {wire}")


def _ended(at: int, end: int) -> None:
    if at != end:
        raise IndexError("a field reaches beyond what holds it")


def _payload(data: bytes) -> Payload:
    timestamp = seq = None
    metrics: list[Metric] = []
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        if tag == 0x12:  # noqa: PLR2004 - field 2, metrics
            start, at = _chunk(data, at, end)
            metrics.append(_metric(data, start, at))
        elif tag == 0x08:  # noqa: PLR2004 - field 1
            timestamp, at = _varint(data, at)
        elif tag == 0x18:  # noqa: PLR2004 - field 3
            seq, at = _varint(data, at)
        else:
            if tag >> 3 in {0, 1, 2, 3}:
                raise IndexError(f"field {tag >> 3} has wire type {tag & 7}")
            at = _skipped(data, at, end, tag & 7)
    _ended(at, end)
    return Payload(timestamp, tuple(metrics), seq)


def _metric(data: bytes, at: int, end: int) -> Metric:  # noqa: C901, PLR0912 - one branch a field
    """A metric; the fields that data have come first, numbers of one byte without a call."""
    name = alias = timestamp = datatype = quality = None
    historical = null = other = False
    value: Value = None
    while at < end:
        tag = data[at]
        at += 1
        if tag >= _TOP_BIT:
            tag, at = _varint(data, at - 1)
        if tag == _ALIAS:
            alias = data[at]
            at += 1
            if alias >= _TOP_BIT:
                alias, at = _varint(data, at - 1)
        elif tag == _TIMESTAMP:
            timestamp, at = _varint(data, at)
        elif tag == _DOUBLE:
            (value,), other = _double(data, at), False
            at += 8
        elif tag == _DATATYPE:
            datatype, at = _varint(data, at)
        elif tag in _INTEGERS:
            value, at = _varint(data, at)
            other = False
        elif tag == _FLOAT:
            (value,), other = _float(data, at), False
            at += 4
        elif tag == _BOOLEAN:
            got, at = _varint(data, at)
            value, other = bool(got), False
        elif tag == _NAME:
            start, at = _chunk(data, at, end)
            name = data[start:at].decode()
        elif tag == _STRING:
            start, at = _chunk(data, at, end)
            value, other = data[start:at].decode(), False
        elif tag == _PROPERTIES:
            start, at = _chunk(data, at, end)
            quality = _quality(data, start, at)
        elif tag == _HISTORICAL:
            got, at = _varint(data, at)
            historical = bool(got)
        elif tag == _NULL:
            got, at = _varint(data, at)
            null = bool(got)
        else:
            if tag in _NO_SCALARS:
                value, other = None, True
            at = _skipped(data, at, end, tag & 7)
    _ended(at, end)
    return Metric(name, alias, timestamp, datatype, historical, null, quality, value, other)


def _quality(data: bytes, at: int, end: int) -> int | None:
    """The property `Quality` of a property set; None where there is none."""
    keys: list[bytes] = []
    values: list[int | None] = []
    while at < end:
        tag, at = _varint(data, at)
        if tag & 7 != _LEN:
            at = _skipped(data, at, end, tag & 7)
            continue
        start, at = _chunk(data, at, end)
        if tag >> 3 == 1:
            keys.append(data[start:at])
        elif tag >> 3 == 2:  # noqa: PLR2004 - field 2, values
            values.append(_whole_number(data, start, at))
    _ended(at, end)
    return next((v for k, v in zip(keys, values, strict=False) if k == b"Quality"), None)


def _whole_number(data: bytes, at: int, end: int) -> int | None:
    """The integer of a property's value."""
    found = None
    while at < end:
        tag, at = _varint(data, at)
        if tag in {0x18, 0x20}:  # fields 3 and 4, int and long
            found, at = _varint(data, at)
        else:
            at = _skipped(data, at, end, tag & 7)
    _ended(at, end)
    return found
