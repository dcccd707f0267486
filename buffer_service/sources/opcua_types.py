"""The data types of one connection, read from the server as they are needed."""

import logging
from collections.abc import Iterable
from typing import Any, Final

from asyncua import Client, ua

from buffer_service.sources.opcua_structs import BUILT_IN, EXTENSION_OBJECT, Field, StructDecoder

logger = logging.getLogger(__name__)

_ENUMERATION: Final = 29
_INT32: Final = 6
_DOUBLE: Final = 11
_VARIANT: Final = 24
_ABSTRACT_NUMBERS: Final = frozenset({26, 27, 28})
_DEEPEST: Final = 20


class TypeUnknownError(Exception):
    """The server does not say how a type is made."""


class DataTypes:
    """Type definitions as this connection's server gives them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._built_in: dict[ua.NodeId, int] = {}
        self._structs: dict[ua.NodeId, StructDecoder] = {}
        self._by_encoding: dict[ua.NodeId, StructDecoder] = {}

    def decoder(self, encoding: ua.NodeId) -> StructDecoder | None:
        """The decoder of values that carry this encoding id, once it is loaded."""
        return self._by_encoding.get(encoding)

    def forget(self) -> None:
        """Read every definition anew when it is needed next."""
        self._built_in.clear()
        self._structs.clear()
        self._by_encoding.clear()

    async def load_for(self, data_types: Iterable[ua.NodeId]) -> None:
        """Load the structures among these data types, with all that they are made of."""
        for data_type in data_types:
            if await self.built_in(data_type) == EXTENSION_OBJECT and not _is_base(data_type):
                try:
                    await self._struct(data_type, 0)
                except (TypeUnknownError, ua.UaError) as error:
                    logger.warning("type %s can not be loaded: %s", data_type.to_string(), error)

    async def load_encoding(self, encoding: ua.NodeId) -> StructDecoder:
        """The decoder of an encoding id that came with a value.

        Raises:
            TypeUnknownError: the server does not say.
            ua.UaError: the server refuses.
        """
        node = self._client.get_node(encoding)
        parents = await node.get_references(
            ua.ObjectIds.HasEncoding, direction=ua.BrowseDirection.Inverse
        )
        if not parents:
            raise TypeUnknownError("its encoding belongs to no type")
        decoder = await self._struct(parents[0].NodeId, 0)
        self._by_encoding[encoding] = decoder
        return decoder

    async def is_state(self, data_type: ua.NodeId) -> bool:
        """True for booleans and enumerations."""
        if data_type == ua.NodeId(ua.Int32(1)) or data_type == ua.NodeId(ua.Int32(_ENUMERATION)):
            return True
        parent = await self._parent(data_type) if not _is_base(data_type) else None
        return parent == ua.NodeId(ua.Int32(_ENUMERATION)) or parent == ua.NodeId(ua.Int32(1))

    async def built_in(self, data_type: ua.NodeId) -> int:
        """The id of the built-in type that values of a data type are encoded as."""
        known = self._built_in.get(data_type)
        if known is None:
            known = self._built_in[data_type] = await self._base(data_type)
        return known

    async def _base(self, data_type: ua.NodeId) -> int:
        at = data_type
        for _ in range(_DEEPEST):
            if at.NamespaceIndex == 0 and isinstance(at.Identifier, int):
                if at.Identifier <= BUILT_IN and at.Identifier:
                    return at.Identifier
                if at.Identifier == _ENUMERATION:
                    return _INT32
                if at.Identifier in _ABSTRACT_NUMBERS:
                    return _VARIANT
            parent = await self._parent(at)
            if parent is None:
                break
            at = parent
        raise TypeUnknownError(f"{data_type.to_string()} stands below no built-in type")

    async def _parent(self, data_type: ua.NodeId) -> ua.NodeId | None:
        node = self._client.get_node(data_type)
        found = await node.get_references(
            ua.ObjectIds.HasSubtype, direction=ua.BrowseDirection.Inverse
        )
        return found[0].NodeId if found else None

    async def _struct(self, data_type: ua.NodeId, depth: int) -> StructDecoder:
        known = self._structs.get(data_type)
        if known is not None:
            return known
        if depth > _DEEPEST:
            raise TypeUnknownError(f"{data_type.to_string()} holds itself")
        node = self._client.get_node(data_type)
        definition: Any = await node.read_data_type_definition()
        if not isinstance(definition, ua.StructureDefinition):
            raise TypeUnknownError(f"{data_type.to_string()} has no structure definition")
        kind = ua.StructureType(definition.StructureType)
        if kind.value > ua.StructureType.Union.value:
            raise TypeUnknownError(f"{data_type.to_string()}: fields of several types")
        fields = []
        for field in definition.Fields:
            type_id: int | StructDecoder = await self.built_in(field.DataType)
            if type_id == EXTENSION_OBJECT and not _is_base(field.DataType):
                type_id = await self._struct(field.DataType, depth + 1)
            rank = int(field.ValueRank)
            if rank < 0 and field.ArrayDimensions:
                rank = len(field.ArrayDimensions)
            fields.append(Field(str(field.Name), type_id, rank, bool(field.IsOptional)))
        name = (await node.read_browse_name()).Name
        decoder = StructDecoder(name, fields, kind=kind)
        self._structs[data_type] = decoder
        if not definition.DefaultEncodingId.is_null():
            self._by_encoding[definition.DefaultEncodingId] = decoder
        return decoder


def _is_base(data_type: ua.NodeId) -> bool:
    """True for the built-in types themselves: what they hold is known from the value alone."""
    return data_type.NamespaceIndex == 0 and (
        isinstance(data_type.Identifier, int) and data_type.Identifier <= BUILT_IN
    )
