"""What a server has, for people who write a plant file."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
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
_INDENT: Final = "  "


class Variable(NamedTuple):
    """A variable: its browse path, its id with the namespace's URI, its type, and a value."""

    path: str
    node: str
    type: str
    value: str


class Found(NamedTuple):
    """What a server has; `others` are the paths of variables that nobody asked for."""

    variables: list[Variable]
    others: list[str]


async def browse(
    source: OpcUaSource, pki_folder: Path, chosen: Callable[[str], bool] = lambda _path: True
) -> Found:
    """The variables below Objects that are not the server's own; parts of variables are left out.

    Args:
        source: the server.
        pki_folder: our certificate, and the servers'.
        chosen: which paths are asked for; others are neither read nor shown.

    Raises:
        SourceError: the server can not be reached or refuses.
    """
    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    pki = Pki(pki_folder)
    client = Client(source.url, timeout=_TIMEOUT_S)
    try:
        await secure(client, source, pki, await asyncio.to_thread(pki.identity))
        async with client:
            return await _variables(client, chosen)
    except (ua.UaError, OSError, PlatformError) as error:
        raise SourceError(
            f"{source.url}: {sentence(error, source, str(pki.certificate))}"
        ) from error


async def _variables(client: Client, chosen: Callable[[str], bool]) -> Found:
    namespaces = await client.get_namespace_array()
    types = DataTypes(client)
    found = Found([], [])
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
                    if not chosen(path):
                        found.others.append(path)
                        continue
                    text = _with_uri(child.NodeId, namespaces)
                    shown = await _shown(client, types, inner)
                    found.variables.append(Variable(path, text, *shown))
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


def tree(found: Iterable[Variable]) -> Iterator[str]:
    """Folders and variables, each indented by its depth; below a variable its id."""
    above: list[str] = []
    for one in sorted(found, key=lambda variable: variable.path.split("/")):
        *folders, name = one.path.split("/")
        pairs = zip(above, folders, strict=False)
        shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
        for depth, folder in enumerate(folders[shared:], shared):
            yield f"{_INDENT * depth}{folder}/"
        yield f"{_INDENT * len(folders)}{name}  {one.type}  {one.value}"
        yield f"{_INDENT * (len(folders) + 2)}{one.node}"
        above = folders
