"""Canonical JSON of an OPC UA value: fields in their order, floats that read back to the bit."""

import dataclasses
import enum
import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from asyncua import ua

_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US_PER_MS: Final = 1_000
_READY: Final = frozenset({float, int, bool, str, dict, type(None)})
"""Types that need no look: a dict is what a structure was decoded to."""
_encode = msgspec.json.Encoder().encode


def canonical(value: Any) -> bytes:
    """A value as JSON.

    Times become Unix milliseconds, byte strings Base64, and NaN and the infinities, which JSON
    does not have, the texts of the OPC UA JSON encoding (`"NaN"`, `"Infinity"`, `"-Infinity"`).
    """
    text = _encode(value if type(value) in _READY else plain(value))
    if b"null" in text:  # msgspec's NaN
        text = _encode(plain(value))
    return text


def plain(value: Any) -> Any:  # noqa: C901, PLR0911 - one case per type
    """A value of JSON's types, as `canonical` writes it."""
    match value:
        case float():
            return value if math.isfinite(value) else _NON_FINITE.get(value, "NaN")
        case datetime():
            return ms_of(value)
        case enum.Enum():
            return value.value
        case dict():
            return {name: plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case ua.Variant():
            return plain(value.Value)
        case ua.LocalizedText():
            return value.Text
        case ua.QualifiedName():
            return value.Name
        case ua.NodeId():
            return value.to_string()
        case ua.StatusCode():
            return value.value
        case ua.ExtensionObject():
            return undecoded(value)
        case _ if dataclasses.is_dataclass(value):
            return {
                field.name: plain(getattr(value, field.name))
                for field in dataclasses.fields(value)
                if field.name != "Encoding"
            }
    return value


def undecoded(value: ua.ExtensionObject) -> dict[str, Any]:
    """A structure of a type that nobody knows: its bytes, so that nothing is lost."""
    return {"UaTypeId": value.TypeId.to_string(), "UaBody": value.Body}


def us_of(moment: datetime | None) -> int | None:
    """Unix microseconds."""
    if moment is None:
        return None
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // _MICROSECOND


def ms_of(moment: datetime) -> msgspec.Raw:
    """A time as a JSON number in Unix ms, exact to the microsecond."""
    us = us_of(moment) or 0
    whole, rest = divmod(abs(us), _US_PER_MS)
    sign = "-" if us < 0 else ""
    return msgspec.Raw((f"{sign}{whole}" + (f".{rest:03d}".rstrip("0") if rest else "")).encode())


_NON_FINITE: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}
