"""How the parts of a plant must fit together: names, sources, topics."""

import fnmatch
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from iiot_platform.config.errors import Problem
from iiot_platform.core.errors import nearest

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
