"""Lines of a plant file for what a server or broker has."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.config.plant import MqttSource
from iiot_platform.core.sparkplug import PREFIX, topic_of


def chooser(patterns: Sequence[str] | None) -> Callable[[str], bool]:
    """Whether a path or topic has one of these shapes; without any, all are chosen."""
    return lambda name: not patterns or any(fnmatchcase(name, one) for one in patterns)


def opcua_lines(
    source: OpcUaSource, paths: Iterable[str], others: Iterable[str], secret: str
) -> Iterator[str]:
    """One mapping per folder, or per variable where others beside it are left out.

    Args:
        source: the server.
        paths: what was chosen.
        others: what was not.
        secret: the line that says where the password is.
    """
    mixed = {folder(path) for path in others}
    yield "sources:"
    yield f"  - kind: opcua\n    url: {source.url}"
    if source.security != "none":
        yield f"    security: {source.security}"
    if source.username is not None:
        yield f"    username: {_quoted(source.username)}"
        yield f"    {secret}"
    if source.user_certificate_file is not None and source.user_key_file is not None:
        yield f"    user_certificate_file: {_quoted(str(source.user_certificate_file.resolve()))}"
        yield f"    user_key_file: {_quoted(str(source.user_key_file.resolve()))}"
    yield "    nodes:"
    for above, inside in itertools.groupby(sorted(paths, key=lambda p: (folder(p), p)), folder):
        if above and above not in mixed:
            yield f"      - path: {_quoted(f'{above}/*')}"
            continue
        for path in inside:
            yield f"      - path: {_quoted(path)}"
            if not above:
                yield "        machine: machine"
    yield "lines:\n  - name: line1"


def mqtt_lines(
    source: MqttSource, topics: Iterable[str], secret: str, *, by_node: bool = False
) -> Iterator[str]:
    """A line for each first level of topics `<line>/<machine>/<device>` and each Sparkplug group.

    Args:
        source: the broker.
        topics: what was heard.
        secret: the line that says where the password is.
        by_node: name the edge nodes of a group instead of taking all that it may have.
    """
    yield f"sources:\n  - kind: mqtt\n    host: {source.host}\n    port: {source.port}"
    if source.username is not None:
        yield f"    username: {_quoted(source.username)}"
        yield f"    {secret}"
    if source.tls is not None:
        files = {
            name: file.resolve()
            for name in ("ca_file", "cert_file", "key_file")
            if (file := getattr(source.tls, name)) is not None
        }
        yield f"    tls: {{{', '.join(f'{n}: {_quoted(str(f))}' for n, f in files.items())}}}"
    yield "lines:"
    own: set[str] = set()
    groups: dict[str, set[str]] = {}
    for topic in topics:
        place = topic_of(topic)
        if place is not None:
            groups.setdefault(place.group, set()).add(place.edge_node)
        elif topic.count("/") >= 2 and not topic.startswith(PREFIX):  # noqa: PLR2004 - line, machine, device
            own.add(topic.split("/")[0])
    for name in sorted(own | set(groups)):
        yield f"  - name: {_quoted(name)}"
        if name not in groups:
            continue
        whole = f"group: {_quoted(name)}"
        nodes = [f"{{{whole}}}"]
        if by_node:
            nodes = [f"{{{whole}, edge_node: {_quoted(node)}}}" for node in sorted(groups[name])]
        yield f"    sparkplug: {{nodes: [{', '.join(nodes)}]}}"


def folder(path: str) -> str:
    """The path above a variable; empty at the top."""
    return path.rpartition("/")[0]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
