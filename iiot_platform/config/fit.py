"""How the parts of a plant must fit together: names, sources, topics."""

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from iiot_platform.config.errors import Problem
from iiot_platform.config.sparkplug import LineSparkplug, SparkplugNodes
from iiot_platform.core.errors import nearest
from iiot_platform.core.sparkplug import PREFIX

LEVELS: Final = "{machine}/{device}"
"""What the shape of every line's topics ends in."""


class LineOutline(NamedTuple):
    """What other parts of a plant refer to in a line."""

    name: str
    source: str | None
    topic: str


def prefix_of(topic: str, line: str) -> str:
    """What every topic of a line starts with, from the shape of its topics."""
    return topic.removesuffix(LEVELS).replace("{line}", line)


def misfits(
    sources: Mapping[int, str], lines: Mapping[int, LineOutline], line_patterns: Mapping[int, str]
) -> Iterator[Problem]:
    """What does not fit together, though each part is right in itself.

    Args:
        sources: names of sources by their place in the file.
        lines: lines by their place in the file.
        line_patterns: line parts of the plant's exceptions by their place in the file.
    """
    yield from _repeated("sources", sources)
    yield from _repeated("lines", {i: line.name for i, line in lines.items()})
    for i, line in lines.items():
        if line.source is not None and line.source not in sources.values():
            hint = nearest(line.source, set(sources.values()))
            yield Problem(("lines", i, "source"), f"no source is called '{line.source}'; {hint}")
    yield from _shared_topics(sources, lines)
    names = {line.name for line in lines.values()}
    for i, pattern in line_patterns.items():
        if names and not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            message = f"the line part '{pattern}' matches no line; {nearest(pattern, names)}"
            yield Problem(("series", i, "match"), message)


def sparkplug_misfits(
    lines: Mapping[int, tuple[str, LineSparkplug | None, str]],
    source_of: Mapping[str, str],
    brokers: Mapping[str, str | None],
) -> Iterator[Problem]:
    """Where the Sparkplug edge nodes of lines do not fit together.

    Args:
        lines: name, edge nodes and prefix of the topics by their place in the file.
        source_of: the source that brings each line.
        brokers: the sources that are brokers, each with the group that shares its messages.
    """
    taken: list[tuple[str, str, SparkplugNodes]] = []
    for i, (name, sparkplug, _) in lines.items():
        source = source_of[name]
        if sparkplug is None:
            continue
        if source not in brokers:
            message = f"source '{source}' is no broker; Sparkplug comes over MQTT"
            yield Problem(("lines", i, "sparkplug"), message)
        elif brokers[source] is not None:
            message = (
                f"the buffers of group '{brokers[source]}' share the messages of source '{source}':"
                " each would have a part of what a node says on change, and at QoS 0 the part of a"
                " buffer that is away is lost; remove shared_group, and give each buffer edge nodes"
                " of its own"
            )
            yield Problem(("lines", i, "sparkplug"), message)
        for j, nodes in enumerate(sparkplug.nodes):
            where = ("lines", i, "sparkplug", "nodes", j)
            clash = _clash(name, nodes, [(o, n) for o, at, n in taken if at == source])
            if clash is not None:
                yield Problem(where, clash)
            taken.append((name, source, nodes))
    with_nodes = {source for _, source, _ in taken}
    for i, (name, _, prefix) in lines.items():
        if source_of[name] in with_nodes and (
            PREFIX.startswith(prefix) or prefix.startswith(PREFIX)
        ):
            message = f"'{prefix}#' would bring the topics of Sparkplug edge nodes too"
            yield Problem(("lines", i, "topic"), message)


def _clash(
    name: str, nodes: SparkplugNodes, taken: Iterable[tuple[str, SparkplugNodes]]
) -> str | None:
    """Why nodes of a line can not stand beside those that are taken; None: they can."""
    for owner, other in taken:
        if owner == name and nodes.text == other.text:
            continue  # further devices of the same
        if nodes.meets(other):
            return (
                f"edge nodes '{nodes.text}' would be those of '{other.text}' of line '{owner}' too;"
                " an edge node and its devices belong to one line"
            )
        if owner == name and nodes.shares_machine(other):
            return (
                f"edge nodes of '{nodes.text}' and '{other.text}' could be one machine; give each"
                " group a line of its own, or write '*' for the group"
            )
    return None


def _repeated(where: str, names: Mapping[int, str]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for i, name in names.items():
        if first.setdefault(name, i) != i:
            message = f"the name '{name}' is taken by {where}[{first[name]}]; each name stands once"
            yield Problem((where, i, "name"), message)


def _shared_topics(
    sources: Mapping[int, str], lines: Mapping[int, LineOutline]
) -> Iterator[Problem]:
    """Lines of one source of which one would take the topics of the other."""
    first_source = next(iter(sources.values()), None)
    prefixes = {i: prefix_of(line.topic, line.name) for i, line in lines.items()}
    owners: dict[tuple[str | None, str], int] = {}
    for i, line in lines.items():
        owners.setdefault((line.source or first_source, prefixes[i]), i)
    for i, line in lines.items():
        source, inner = line.source or first_source, prefixes[i]
        for outer in ("", *(inner[: at + 1] for at, char in enumerate(inner) if char == "/")):
            owner = owners.get((source, outer), i)
            if owner != i and lines[owner].name != line.name:
                yield Problem(
                    ("lines", i, "topic"),
                    f"topics below '{inner}' would belong to line '{lines[owner].name}' too, "
                    f"which takes '{outer}#'; give each line topics of its own",
                )
                break
