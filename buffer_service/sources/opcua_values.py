"""Values of one connection: structures decoded, with fresh definitions where theirs do not fit."""

import contextlib
import dataclasses
import logging
import time
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import ServiceError

from buffer_service.sources.opcua_json import plain
from buffer_service.sources.opcua_structs import BodyError, StructDecoder
from buffer_service.sources.opcua_types import DataTypes, TypeUnknownError

logger = logging.getLogger(__name__)

_RELOAD_EVERY_S: Final = 5.0


class ValueDecoder:
    """Makes values ready for JSON.

    Args:
        types: the type definitions of the connection.
        source: name of the source, for the log.
    """

    def __init__(self, types: DataTypes, source: str) -> None:
        self._types = types
        self._source = source
        self._reloaded_at = 0.0
        self._unknown: set[ua.NodeId] = set()

    async def decode(self, value: Any) -> Any:
        """A value whose structures are dicts; one that nobody can decode stays as it came."""
        if isinstance(value, ua.ExtensionObject):
            return await self._structure(value)
        if dataclasses.is_dataclass(value):
            return plain(value)
        if isinstance(value, list) and value and isinstance(value[0], ua.ExtensionObject):
            return [await self._structure(one) for one in value]
        return value

    async def _structure(self, value: ua.ExtensionObject) -> Any:
        if value.Body is None:
            return None
        decoder = self._types.decoder(value.TypeId)
        with contextlib.suppress(BodyError):
            if decoder is not None:
                return decoder.decode(value.Body)
        decoder = await self._reload(value.TypeId, changed=decoder is not None)
        try:
            if decoder is not None:
                return decoder.decode(value.Body)
        except BodyError as error:
            self._say_unknown(value.TypeId, str(error))
        return value

    async def _reload(self, encoding: ua.NodeId, *, changed: bool) -> StructDecoder | None:
        """The definition of a structure, read anew, though not again and again."""
        now = time.monotonic()
        if now - self._reloaded_at < _RELOAD_EVERY_S and (changed or encoding in self._unknown):
            return self._types.decoder(encoding)
        self._reloaded_at = now
        if changed:
            logger.info("source '%s': type definitions have changed", self._source)
            self._types.forget()
        try:
            return await self._types.load_encoding(encoding)
        except (TypeUnknownError, ua.UaError, ServiceError, OSError) as error:
            self._say_unknown(encoding, str(error) or type(error).__name__)
            return None

    def _say_unknown(self, encoding: ua.NodeId, why: str) -> None:
        if encoding not in self._unknown:
            self._unknown.add(encoding)
            logger.error(
                "source '%s': structures of type %s can not be decoded: %s; their bytes are kept",
                self._source,
                encoding.to_string(),
                why,
            )
