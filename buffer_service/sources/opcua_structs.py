"""Structures of an OPC UA server: from definitions to decoders of their binary form (Part 6).

asyncua keeps decoded types in one table for the whole process and does not replace a type that
it knows. Here every connection has its own: two servers may give one id to different types, and
a definition that has changed counts from the next connection on.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import extensionobject_from_binary, unpack_uatype

from buffer_service.sources.opcua_json import plain

Reader = Callable[[bytes, int], tuple[Any, int]]
"""(bytes, position) to (value, position behind it)."""

_FIXED: Final[Mapping[int, str]] = {
    1: "?",
    2: "b",
    3: "B",
    4: "h",
    5: "H",
    6: "i",
    7: "I",
    8: "q",
    9: "Q",
    10: "f",
    11: "d",
    19: "I",
}
"""struct codes of built-in types."""
_STRING_TYPES: Final = frozenset({12, 16})
_BYTES: Final = 15
_DATE_TIME: Final = 13
EXTENSION_OBJECT: Final = 22
BUILT_IN: Final = 25
"""Ids of built-in types go up to this."""
_COUNT: Final = struct.Struct("<i")
_TICKS: Final = struct.Struct("<q")
_MASK: Final = struct.Struct("<I")
TICKS_PER_MS: Final = 10_000
EPOCH_TICKS: Final = 116_444_736_000_000_000
"""1970-01-01 in units of 100 ns since 1601."""
_LONGEST: Final = 10_000_000
_TRUNCATED: Final = "the bytes end within it"


class BodyError(ValueError):
    """A structure's bytes are not what its definition says."""


class Field(NamedTuple):
    """A field; `type` is a built-in type's id or the decoder of a structure."""

    name: str
    type: "int | StructDecoder"
    rank: int = -1
    optional: bool = False


class StructDecoder:
    """Decodes one structure into a dict in the order of its fields.

    Attributes:
        name: the type's name.
    """

    def __init__(
        self,
        name: str,
        fields: Sequence[Field],
        *,
        kind: ua.StructureType = ua.StructureType.Structure,
    ) -> None:
        self.name = name
        self._union = kind is ua.StructureType.Union
        self._optional = kind is ua.StructureType.StructureWithOptionalFields
        self._fields = tuple(fields)
        self._steps = [] if self._union or self._optional else list(_steps(fields))
        self._readers = [(field.name, field.optional, _reader(field)) for field in fields]

    def decode(self, body: bytes) -> dict[str, Any]:
        """The fields of a whole body.

        Raises:
            BodyError: the bytes are too few, too many or nonsense.
        """
        try:
            value, end = self.read(body, 0)
        except (struct.error, IndexError, OverflowError, ua.UaError, ValueError) as error:
            raise BodyError(f"{self.name}: {error}") from error
        if end != len(body):
            raise BodyError(f"{self.name}: takes {end} of {len(body)} bytes")
        return value

    def read(self, data: bytes, at: int) -> tuple[dict[str, Any], int]:
        """One structure from a position on."""
        value: dict[str, Any] = {}
        if self._union:
            (switch,) = _MASK.unpack_from(data, at)
            at += 4
            if switch:
                name, _, reader = self._readers[switch - 1]
                value[name], at = reader(data, at)
            return value, at
        if self._optional:
            (mask,) = _MASK.unpack_from(data, at)
            at, bit = at + 4, 1
            for name, optional, reader in self._readers:
                if optional:
                    there, bit = mask & bit, bit << 1
                    if not there:
                        continue
                value[name], at = reader(data, at)
            return value, at
        for names, fixed, reader in self._steps:
            if fixed is not None:
                value.update(zip(names, fixed.unpack_from(data, at), strict=True))
                at += fixed.size
            elif reader is not None:
                value[names[0]], at = reader(data, at)
        return value, at


def _steps(
    fields: Sequence[Field],
) -> "list[tuple[tuple[str, ...], struct.Struct | None, Reader | None]]":
    """Neighbouring fields of fixed size are read in one go."""
    steps: list[tuple[tuple[str, ...], struct.Struct | None, Reader | None]] = []
    names: list[str] = []
    codes = ""
    for field in fields:
        code = _FIXED.get(field.type) if isinstance(field.type, int) and field.rank < 0 else None
        if code is not None:
            names.append(field.name)
            codes += code
            continue
        if names:
            steps.append((tuple(names), struct.Struct(f"<{codes}"), None))
            names, codes = [], ""
        steps.append(((field.name,), None, _reader(field)))
    if names:
        steps.append((tuple(names), struct.Struct(f"<{codes}"), None))
    return steps


def _reader(field: Field) -> Reader:
    one = field.type.read if isinstance(field.type, StructDecoder) else _built_in(field.type)
    if field.rank < 0:
        return one
    code = _FIXED.get(field.type) if isinstance(field.type, int) else None
    row = _fixed_array(code) if code else _array(one)
    return row if field.rank <= 1 else _matrix(one)


def _built_in(type_id: int) -> Reader:
    code = _FIXED.get(type_id)
    if code is not None:
        fixed = struct.Struct(f"<{code}")
        return lambda data, at: (fixed.unpack_from(data, at)[0], at + fixed.size)
    if type_id in _STRING_TYPES:
        return _text
    if type_id == _BYTES:
        return _bytes
    if type_id == _DATE_TIME:
        return _date_time
    if type_id == EXTENSION_OBJECT:
        return lambda data, at: _by_asyncua(data, at, extensionobject_from_binary)
    variant_type = ua.VariantType(type_id)
    return lambda data, at: _by_asyncua(
        data, at, lambda buffer: unpack_uatype(variant_type, buffer)
    )


def _by_asyncua(data: bytes, at: int, unpack: Callable[[Buffer], Any]) -> tuple[Any, int]:
    buffer = Buffer(data, at)
    value = unpack(buffer)
    return plain(value), buffer.cur_pos


def _count(data: bytes, at: int) -> int:
    (count,) = _COUNT.unpack_from(data, at)
    if count > _LONGEST:
        raise BodyError(f"{count} elements")
    return int(count)


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length = _count(data, at)
    at += 4
    if length < 0:
        return None, at
    if at + length > len(data):
        raise BodyError(_TRUNCATED)
    return data[at : at + length], at + length


def _text(data: bytes, at: int) -> tuple[str | None, int]:
    value, at = _bytes(data, at)
    return (None if value is None else value.decode("utf-8", "backslashreplace")), at


def _date_time(data: bytes, at: int) -> tuple[msgspec.Raw | None, int]:
    (ticks,) = _TICKS.unpack_from(data, at)
    return ms_of_ticks(ticks), at + 8


def ms_of_ticks(ticks: int) -> msgspec.Raw | None:
    """A time as a JSON number in Unix ms, exact to 100 ns; None where there is none."""
    if ticks <= 0:
        return None
    since = ticks - EPOCH_TICKS
    whole, rest = divmod(abs(since), TICKS_PER_MS)
    text = f"{'-' if since < 0 else ''}{whole}" + (f".{rest:04d}".rstrip("0") if rest else "")
    return msgspec.Raw(text.encode())


def _fixed_array(code: str) -> Reader:
    size = struct.calcsize(f"<{code}")

    def read(data: bytes, at: int) -> tuple[list[Any] | None, int]:
        count = _count(data, at)
        at += 4
        if count < 0:
            return None, at
        return list(struct.unpack_from(f"<{count}{code}", data, at)), at + count * size

    return read


def _array(one: Reader) -> Reader:
    def read(data: bytes, at: int) -> tuple[list[Any] | None, int]:
        count = _count(data, at)
        at += 4
        if count < 0:
            return None, at
        values = []
        for _ in range(count):
            value, at = one(data, at)
            values.append(value)
        return values, at

    return read


def _matrix(one: Reader) -> Reader:
    """Lengths of the dimensions, then all elements; becomes lists within lists."""

    def read(data: bytes, at: int) -> tuple[list[Any] | None, int]:
        lengths, at = _fixed_array("i")(data, at)
        if lengths is None:
            return None, at
        count = 1
        for length in lengths:
            count *= max(length, 0)
        if count > _LONGEST:
            raise BodyError(f"{count} elements")
        values: list[Any] = []
        for _ in range(count):
            value, at = one(data, at)
            values.append(value)
        for length in reversed(lengths[1:]):
            values = [values[i : i + length] for i in range(0, len(values), max(length, 1))]
        return values, at

    return read
