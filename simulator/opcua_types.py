"""OPC UA structures as a PLC project has them, made from the shape of a device's payload."""

import struct
from typing import Any, Final, NamedTuple

from asyncua import Server, ua
from asyncua.common.structures104 import new_struct, new_struct_field

_WIDE: Final = frozenset({"TimeStamp"})
"""Integers that need 64 bits."""


class Scalar(NamedTuple):
    """A field of a built-in type."""

    type: ua.VariantType
    is_array: bool = False


class Shape(NamedTuple):
    """A structure: its name and its fields in order."""

    name: str
    fields: tuple[tuple[str, "Scalar | Shape"], ...]


def shape_of(name: str, payload: dict[str, Any]) -> Shape:
    """The structure that a payload would be in a PLC."""
    return Shape(
        name, tuple((field, _field(name, field, value)) for field, value in payload.items())
    )


def _field(name: str, field: str, value: Any) -> Scalar | Shape:
    match value:
        case dict():
            return shape_of(f"{name}_{field}", value)
        case list():
            return Scalar(ua.VariantType.Double, is_array=True)
        case bool():
            return Scalar(ua.VariantType.Boolean)
        case int():
            wide = field in _WIDE
            return Scalar(ua.VariantType.Int64 if wide else ua.VariantType.Int32)
        case float():
            return Scalar(ua.VariantType.Double)
    return Scalar(ua.VariantType.String)


class StructType(NamedTuple):
    """A structure that a server knows."""

    data_type: ua.NodeId
    encoding: ua.NodeId
    shape: Shape

    def value(self, payload: dict[str, Any]) -> ua.ExtensionObject:
        """A payload in the binary form."""
        body = b"".join(_encoded(payload, self.shape))
        return ua.ExtensionObject(TypeId=self.encoding, Body=ua.ByteString(body))


class TypeLibrary:
    """Makes each structure once in a server's address space."""

    def __init__(self, server: Server, namespace: int) -> None:
        self._server = server
        self._namespace = namespace
        self._made: dict[Shape, StructType] = {}

    async def make(self, shape: Shape) -> StructType:
        """The structure of a shape, with those that it holds."""
        known = self._made.get(shape)
        if known is not None:
            return known
        fields = await self._fields(shape)
        node, encodings = await new_struct(self._server, self._namespace, shape.name, fields)
        made = self._made[shape] = StructType(node.nodeid, encodings[0].nodeid, shape)
        return made

    async def extend(self, known: StructType, payload: dict[str, Any]) -> StructType:
        """A structure whose definition becomes that of a payload, under the ids that it has."""
        shape = shape_of(known.shape.name, payload)
        definition = ua.StructureDefinition(
            DefaultEncodingId=known.encoding,
            BaseDataType=self._server.nodes.base_structure_type.nodeid,
            Fields=await self._fields(shape),
        )
        node = self._server.get_node(known.data_type)
        await node.write_data_type_definition(definition)
        return known._replace(shape=shape)

    async def _fields(self, shape: Shape) -> list[ua.StructureField]:
        fields = []
        for name, inner in shape.fields:
            if isinstance(inner, Shape):
                fields.append(new_struct_field(name, (await self.make(inner)).data_type))
            else:
                fields.append(new_struct_field(name, inner.type, array=inner.is_array))
        return fields


_CODES: Final = {
    ua.VariantType.Boolean: "<?",
    ua.VariantType.Int32: "<i",
    ua.VariantType.Int64: "<q",
    ua.VariantType.Double: "<d",
}


def _encoded(payload: dict[str, Any], shape: Shape) -> list[bytes]:
    parts = []
    for name, inner in shape.fields:
        value = payload[name]
        if isinstance(inner, Shape):
            parts += _encoded(value, inner)
        elif inner.is_array:
            parts.append(struct.pack(f"<i{len(value)}d", len(value), *value))
        elif inner.type is ua.VariantType.String:
            text = str(value).encode()
            parts.append(struct.pack("<i", len(text)) + text)
        else:
            parts.append(struct.pack(_CODES[inner.type], value))
    return parts
