"""Sparkplug B payloads as a device writes them, from the fields of the public specification."""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

INT64: Final = 4
UINT64: Final = 8
DOUBLE: Final = 10
BOOLEAN: Final = 11
STRING: Final = 12

Value = float | int | bool | str
_VARINT: Final = 0
_EIGHT_BYTES: Final = 1
_LENGTH: Final = 2


class Metric(NamedTuple):
    """One metric; births have a name and a type, data an alias alone.

    Attributes:
        value: None: it has none yet.
    """

    value: Value | None
    alias: int | None = None
    name: str | None = None
    datatype: int | None = None
    timestamp_ms: int | None = None


def datatype_of(value: Value) -> int:
    """The data type of a value."""
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return INT64
    return DOUBLE if isinstance(value, float) else STRING


def encoded(
    metrics: Iterable[Metric], *, timestamp_ms: int | None = None, seq: int | None = None
) -> bytes:
    """A payload."""
    parts = []
    if timestamp_ms is not None:
        parts.append(_number(1, timestamp_ms))
    parts += [_bytes(2, _metric(metric)) for metric in metrics]
    if seq is not None:
        parts.append(_number(3, seq))
    return b"".join(parts)


def asks_for_rebirth(payload: bytes) -> bool:
    """True for a command that sets `Node Control/Rebirth`."""
    # the name, and behind it Boolean true (field 14): enough for a device that knows one command
    _, found, behind = payload.partition(b"Node Control/Rebirth")
    return bool(found) and b"\x70\x01" in behind


def _metric(metric: Metric) -> bytes:
    parts = []
    if metric.name is not None:
        parts.append(_bytes(1, metric.name.encode()))
    if metric.alias is not None:
        parts.append(_number(2, metric.alias))
    if metric.timestamp_ms is not None:
        parts.append(_number(3, metric.timestamp_ms))
    if metric.datatype is not None:
        parts.append(_number(4, metric.datatype))
    parts.append(_value(metric.value))
    return b"".join(parts)


def _value(value: Value | None) -> bytes:
    if value is None:
        return _number(7, 1)
    if isinstance(value, bool):
        return _number(14, int(value))
    if isinstance(value, int):
        return _number(11, value % (1 << 64))
    if isinstance(value, float):
        return _tag(13, _EIGHT_BYTES) + struct.pack("<d", value)
    return _bytes(15, value.encode())


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
    return _tag(field, _VARINT) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _tag(field, _LENGTH) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups[-1] |= 0x80
        groups.append(value & 0x7F)
    return bytes(groups)
