"""From the plant file's nodes to those of a server, and to topics."""

import base64
import fnmatch
import itertools
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from asyncua import Client, Node, ua

from buffer_service.sources.opcua_structs import EXTENSION_OBJECT
from buffer_service.sources.opcua_types import DataTypes, TypeUnknownError
from iiot_platform.config.level_name import level
from iiot_platform.config.opcua_source import OpcUaNode, OpcUaSource

MOST_NODES: Final = 20_000
_BATCH: Final = 500

Shape = Literal["signal", "state", "struct"]


class LineRoute(NamedTuple):
    """The stream of a line and what its topics start with."""

    stream: str
    topic_prefix: str


class Target(NamedTuple):
    """A node that is captured.

    Attributes:
        node: its id, valid for this connection.
        stream: the line.
        topic: `<prefix><machine>/<device>`.
        shape: what a value is: a structure, or what a scalar stands for.
        data_type: what the server says of its value.
    """

    node: ua.NodeId
    stream: str
    topic: str
    shape: Shape
    data_type: ua.NodeId


class Refused(NamedTuple):
    """A node of the plant file, or one below its pattern, that can not be captured."""

    what: str
    why: str


class _Found(NamedTuple):
    node: Node
    names: tuple[str, ...]


async def resolve(
    client: Client, settings: OpcUaSource, routes: Mapping[str, LineRoute], types: DataTypes
) -> tuple[list[Target], list[Refused]]:
    """The nodes that the plant file means; one that can not be used does not stop the others.

    Raises:
        ua.UaError: the server refuses to be browsed at all.
    """
    targets: list[Target] = []
    refused: list[Refused] = []
    topics: dict[str, ua.NodeId] = {}
    taken: set[ua.NodeId] = set()
    indexes = {uri: i for i, uri in enumerate(await client.get_namespace_array())}
    for wanted in settings.nodes:
        try:
            found = [
                one
                for one in await _find(client, settings, wanted, indexes)
                if one.node.nodeid not in taken
            ]
        except (LookupError, ua.UaError, ValueError) as error:
            refused.append(Refused(wanted.text, _why(error)))
            continue
        route = routes[wanted.line] if wanted.line is not None else next(iter(routes.values()))
        for one, data_type in zip(found, await _data_types(client, found), strict=True):
            name = "/".join(one.names) or wanted.text
            try:
                topic = _topic(wanted, one, route)
                if topic in topics:
                    raise LookupError(f"topic '{topic}' is taken by {topics[topic].to_string()}")  # noqa: TRY301 - is told with the others
                target = Target(
                    one.node.nodeid,
                    route.stream,
                    topic,
                    await _shape(types, wanted, data_type),
                    _usable(data_type),
                )
            except (LookupError, ValueError, ua.UaError) as error:
                refused.append(Refused(name, _why(error)))
                continue
            topics[topic] = target.node
            taken.add(target.node)
            targets.append(target)
    return targets, refused


def _why(error: Exception) -> str:
    return type(error).__name__ if isinstance(error, ua.UaStatusCodeError) else str(error)


async def _data_types(client: Client, found: Sequence[_Found]) -> list[ua.NodeId | ua.StatusCode]:
    answers: list[ua.NodeId | ua.StatusCode] = []
    for at in range(0, len(found), _BATCH):
        nodes = [one.node.nodeid for one in found[at : at + _BATCH]]
        for value in await client.uaclient.read_attributes(nodes, ua.AttributeIds.DataType):
            status = value.StatusCode or ua.StatusCode()
            held = value.Value.Value if value.Value is not None else None
            answers.append(held if isinstance(held, ua.NodeId) else status)
    return answers


def _usable(data_type: ua.NodeId | ua.StatusCode) -> ua.NodeId:
    if isinstance(data_type, ua.NodeId):
        return data_type
    raise LookupError(f"can not be read: {data_type.name}")


async def _shape(
    types: DataTypes, wanted: OpcUaNode, data_type: ua.NodeId | ua.StatusCode
) -> Shape:
    try:
        if await types.built_in(_usable(data_type)) == EXTENSION_OBJECT:
            return "struct"
        return wanted.kind or ("state" if await types.is_state(_usable(data_type)) else "signal")
    except TypeUnknownError:
        return wanted.kind or "signal"


def _topic(wanted: OpcUaNode, found: _Found, route: LineRoute) -> str:
    names = found.names
    machine = wanted.machine or level(names[-2])
    device = wanted.device or level(names[-1])
    return f"{route.topic_prefix}{machine}/{device}"


async def _find(
    client: Client, settings: OpcUaSource, wanted: OpcUaNode, indexes: Mapping[str, int]
) -> list[_Found]:
    if wanted.node is not None:
        return [_Found(client.get_node(node_id(wanted.node, indexes)), ())]
    index = None
    if settings.namespace is not None:
        index = _index(settings.namespace, indexes)
    level_now = [_Found(client.nodes.objects, ())]
    parts = (wanted.path or "").split("/")
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        deeper: list[_Found] = []
        for parent in level_now:
            matching = await _children(parent, part, index, variables_only=last)
            if len(deeper) + len(matching) > MOST_NODES:
                raise LookupError(f"more than {MOST_NODES} nodes match; name a folder below")
            deeper += matching
        if not deeper:
            place = "/".join(parts[:depth]) or "Objects"
            raise LookupError(f"'{part}' is not there below {place}")
        level_now = deeper
    return level_now


async def _children(
    parent: _Found, pattern: str, index: int | None, *, variables_only: bool
) -> list[_Found]:
    node_class = ua.NodeClass.Variable if variables_only else ua.NodeClass.Unspecified
    exact: dict[str, int] = {}
    found = []
    for child in await parent.node.get_children_descriptions(
        refs=ua.ObjectIds.HierarchicalReferences, nodeclassmask=node_class
    ):
        name = child.BrowseName.Name or ""
        if not fnmatch.fnmatchcase(name, pattern):
            continue
        if index is not None and child.BrowseName.NamespaceIndex != index:
            continue
        if exact.setdefault(name, child.BrowseName.NamespaceIndex) != (
            child.BrowseName.NamespaceIndex
        ):
            raise LookupError(f"'{name}' is there in several namespaces; set 'namespace'")
        found.append(_Found(Node(parent.node.session, child.NodeId), (*parent.names, name)))
    return found


def node_id(text: str, indexes: Mapping[str, int]) -> ua.NodeId:
    """The node id of this connection that a text with a namespace URI names.

    Raises:
        LookupError: the server does not have the namespace.
        ValueError: the identifier is not of its form.
    """
    index, rest = 0, text
    if text.startswith("nsu="):
        uri, _, rest = text.removeprefix("nsu=").partition(";")
        index = _index(uri, indexes)
    form, _, name = rest.partition("=")
    identifier: ua.Int32 | ua.String | ua.Guid | ua.ByteString
    match form:
        case "i":
            identifier = ua.Int32(int(name))
        case "s":
            identifier = ua.String(name)
        case "g":
            identifier = ua.Guid(name)
        case _:
            identifier = ua.ByteString(base64.b64decode(name, validate=True))
    return ua.NodeId(identifier, ua.Int16(index))


def _index(uri: str, indexes: Mapping[str, int]) -> int:
    if uri not in indexes:
        known = ", ".join(name for name in indexes if name)
        raise LookupError(f"the server has no namespace '{uri}'; it has {known}")
    return indexes[uri]


def flattened(reasons: Sequence[Refused], limit: int = 5) -> str:
    """Refused nodes in a sentence."""
    told = [f"{what} ({why})" for what, why in itertools.islice(reasons, limit)]
    more = len(reasons) - len(told)
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")
