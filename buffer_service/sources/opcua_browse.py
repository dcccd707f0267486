"""What a server has, for people who write a plant file."""

import asyncio
import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from asyncua import Client, Node, ua
from asyncua.common.utils import ServiceError

from buffer_service.sources.opcua_failures import sentence
from buffer_service.sources.opcua_json import canonical
from buffer_service.sources.opcua_pki import Pki
from buffer_service.sources.opcua_security import secure
from buffer_service.sources.opcua_types import DataTypes, TypeUnknownError
from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.core.errors import PlatformError, SourceError

MOST_NODES: Final = 20_000
_DEEPEST: Final = 12
_TIMEOUT_S: Final = 10.0
_LONGEST_TEXT: Final = 120
_OWN: Final = frozenset({"Server", "Aliases", "Locations", "Types", "Views"})
"""What every server has below Objects beside its plant."""


class Variable(NamedTuple):
    """A variable: its browse path, its id with the namespace's URI, its type, and a value."""

    path: str
    node: str
    type: str
    value: str


async def browse(source: OpcUaSource, pki_folder: Path) -> list[Variable]:
    """All variables below Objects that are not the server's own; parts of variables are left out.

    Raises:
        SourceError: the server can not be reached or refuses.
    """
    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    pki = Pki(pki_folder)
    client = Client(source.url, timeout=_TIMEOUT_S)
    try:
        await secure(client, source, pki, await asyncio.to_thread(pki.identity))
        async with client:
            return await _variables(client)
    except (ua.UaError, OSError, PlatformError) as error:
        raise SourceError(
            f"{source.url}: {sentence(error, source, str(pki.certificate))}"
        ) from error


async def _variables(client: Client) -> list[Variable]:
    namespaces = await client.get_namespace_array()
    types = DataTypes(client)
    found: list[Variable] = []
    seen: set[ua.NodeId] = set()
    level: list[tuple[Node, tuple[str, ...]]] = [(client.nodes.objects, ())]
    for _ in range(_DEEPEST):
        below: list[tuple[Node, tuple[str, ...]]] = []
        for node, names in level:
            for child in await node.get_children_descriptions(
                refs=ua.ObjectIds.HierarchicalReferences
            ):
                name = child.BrowseName.Name or ""
                if child.NodeId in seen or (not names and name in _OWN):
                    continue
                seen.add(child.NodeId)
                inner = client.get_node(child.NodeId)
                if child.NodeClass == ua.NodeClass.Variable:
                    path = "/".join((*names, name))
                    text = _with_uri(child.NodeId, namespaces)
                    found.append(Variable(path, text, *await _shown(client, types, inner)))
                elif child.NodeClass == ua.NodeClass.Object:
                    below.append((inner, (*names, name)))
                if len(seen) >= MOST_NODES:
                    return found
        level = below
    return found


async def _shown(client: Client, types: DataTypes, node: Node) -> tuple[str, str]:
    type_name = ""
    try:
        data_type = await node.read_data_type()
        type_name = (await client.get_node(data_type).read_browse_name()).Name or ""
        value = await node.read_value()
        if isinstance(value, ua.ExtensionObject):
            decoder = await types.load_encoding(value.TypeId)
            value = decoder.decode(value.Body or b"")
        text = canonical(value).decode()
    except (ua.UaError, ServiceError, TypeUnknownError, ValueError) as error:
        return type_name, type(error).__name__
    short = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
    return type_name, short


def _with_uri(node: ua.NodeId, namespaces: Sequence[str]) -> str:
    text = node.to_string()
    if not node.NamespaceIndex:
        return text
    return f"nsu={namespaces[node.NamespaceIndex]};{text.partition(';')[2]}"


def plant_lines(source: OpcUaSource, found: Sequence[Variable]) -> Iterator[str]:
    """Lines of a plant file: one mapping per folder, with a line's name to be given."""
    yield "sources:"
    yield f"  - kind: opcua\n    url: {source.url}"
    if source.security != "none":
        yield f"    security: {source.security}"
    if source.username is not None:
        yield f"    username: {json.dumps(source.username)}"
        yield "    password: ${OPCUA_PASSWORD}"
    yield "    nodes:"
    folders = itertools.groupby(sorted(one.path for one in found), lambda p: p.rpartition("/")[0])
    for folder, paths in folders:
        if not folder:
            for path in paths:
                yield f"      - path: {json.dumps(path, ensure_ascii=False)}"
                yield "        machine: machine"
            continue
        yield f"      - path: {json.dumps(f'{folder}/*', ensure_ascii=False)}"
    yield "lines:\n  - name: line1"
