"""YAML as plain values that remember the line they came from.

Scalars are read as YAML 1.2 does: `no`, `1:30` and `010` are no booleans, times or octals, so
that a name in the file stays what its author wrote.
"""

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from iiot_platform.config.errors import Location, PlantFileError, Problem

_MERGE = "tag:yaml.org,2002:merge"
_MAX_DEPTH = 50
_MAX_NODES = 200_000
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_INT = re.compile(r"[-+]?[0-9]+")
_LONGEST_INT = 20
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

Expand = Callable[[str], str]
"""Replaces what stands for a value in a text; raises ValueError where it can not."""


@dataclass
class Tree:
    """The values of a YAML file and where they stand.

    Attributes:
        values: plain dicts, lists and scalars.
        lines: line of each location; a field's is that of its key.
        texts: scalars as they are written, before anything was put in their place.
        problems: what was wrong; the values are then incomplete.
    """

    values: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    texts: dict[Location, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, location: Location) -> int:
        """The line of the location, or of the nearest one around it."""
        for end in range(len(location), -1, -1):
            if location[:end] in self.lines:
                return self.lines[location[:end]]
        return 0


def read_tree(path: Path, expand: Expand) -> Tree:
    """The tree of a YAML file.

    Raises:
        PlantFileError: the file can not be read, is empty or is not YAML.
    """
    text = _text(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise PlantFileError(
            path, [Problem((), f"not YAML: {what}", mark.line + 1 if mark else 0)]
        ) from error
    except yaml.YAMLError as error:
        raise PlantFileError(path, [Problem((), f"not YAML: {error}")]) from error
    except RecursionError as error:
        raise PlantFileError(path, [Problem((), "not YAML: nested too deeply")]) from error
    if node is None:
        raise PlantFileError(path, [_empty()])
    return _Builder(path, expand).build(node)


def _empty() -> Problem:
    return Problem((), "the file is empty; a plant needs at least 'lines: [line1]'")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        message = "no such file; set IIOT_PLANT to the plant file"
        raise PlantFileError(path, [Problem((), message)]) from error
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text (byte {error.start})"
        raise PlantFileError(path, [Problem((), message)]) from error
    except OSError as error:
        message = f"can not be read: {error.strerror}"
        raise PlantFileError(path, [Problem((), message)]) from error


class _Builder:
    def __init__(self, path: Path, expand: Expand) -> None:
        self._path = path
        self._expand = expand
        self._tree = Tree()
        self._nodes = 0

    def build(self, node: yaml.Node) -> Tree:
        self._tree.values = self._value(node, ())
        return self._tree

    def _value(self, node: yaml.Node, at: Location) -> Any:
        line = node.start_mark.line + 1
        self._tree.lines.setdefault(at, line)
        self._nodes += 1
        if len(at) > _MAX_DEPTH or self._nodes > _MAX_NODES:
            message = "nested too deeply; does an anchor hold itself, or many times another?"
            raise PlantFileError(self._path, [Problem(at[:3], message, line)])
        if node.tag.startswith("!"):
            self._problem(node, at, f"tags such as {node.tag} have no meaning here")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, (*at, i)) for i, child in enumerate(node.value)]
        return self._scalar(node, at)

    def _mapping(self, node: yaml.MappingNode, at: Location) -> dict[str, Any]:
        values: dict[str, Any] = {}
        own: dict[Hashable, int] = {}
        for key_node, value_node in _merged_first(node):
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, at, "a field name should be plain text")
                continue
            key = key_node.value
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                self._merge(value_node, at, values)
                continue
            here = (*at, key)
            if key in own:
                message = f"stands twice, first in line {own[key]}; keep one"
                self._tree.problems.append(Problem(here, message, line))
                continue
            own[key] = line
            if key in values:
                self._forget(here)
            self._tree.lines[here] = line
            values[key] = self._value(value_node, here)
        return values

    def _merge(self, node: yaml.Node, at: Location, values: dict[str, Any]) -> None:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in reversed(parts):
            if isinstance(part, yaml.MappingNode):
                values.update(self._mapping(part, at))
            else:
                self._problem(node, at, "'<<' takes a mapping or a list of mappings")

    def _forget(self, at: Location) -> None:
        """Drop what a merged mapping said about a field that is written again."""
        for known in (self._tree.lines, self._tree.texts):
            for location in [place for place in known if place[: len(at)] == at]:
                del known[location]

    def _scalar(self, node: yaml.Node, at: Location) -> Any:
        text = str(node.value)
        self._tree.texts[at] = text
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        if plain and (text in _NULLS or text in _BOOLEANS):
            return _BOOLEANS.get(text)
        if plain and _INT.fullmatch(text):
            return int(text) if len(text) < _LONGEST_INT else text
        if plain and _FLOAT.fullmatch(text):
            return float(text)
        try:
            return self._expand(text)
        except ValueError as error:
            self._problem(node, at, str(error))
            return None

    def _problem(self, node: yaml.Node, at: Location, message: str) -> None:
        self._tree.problems.append(Problem(at, message, node.start_mark.line + 1))


def _merged_first(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    """The pairs of a mapping, what it merges before what it says itself."""
    return sorted(node.value, key=lambda pair: pair[0].tag != _MERGE)
