"""Reading a plant file: every problem at once, each with its line and what was meant."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from iiot_platform.config.errors import Location, PlantError, PlantFileError, Problem
from iiot_platform.config.fit import LineOutline, misfits
from iiot_platform.config.line_settings import TOPIC_SHAPE
from iiot_platform.config.opcua_source import node_misfits, outlined
from iiot_platform.config.plant import Plant
from iiot_platform.config.yaml_tree import Tree, read_tree
from iiot_platform.core.errors import nearest

_SECRETS = frozenset({"password", "token", "hmac_key"})
_UNSAID = _SECRETS | {"webhook"}
"""What stands at these is not repeated in a message; the address of a webhook may be a secret."""
_FILE = "_file"
_PATHS = frozenset(
    {
        *("ca_file", "cert_file", "key_file", "server_certificate_file"),
        *("user_certificate_file", "user_key_file"),
    }
)
_SOURCE_KINDS = frozenset({"mqtt", "opcua"})
_SOURCE_DEPTH = 2
_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED = re.compile(r"'([^']*)'")
_LONGEST_TEXT = 60


def load_plant(path: Path, environ: Mapping[str, str], *, folder: Path | None = None) -> Plant:
    """The plant that a file describes.

    `${NAME}` in any text is taken from `environ` (`$${` stands for `${`), and `password_file`
    names a file that holds the password. Paths are relative to the folder of the plant file, or to
    `folder` where it is given.

    Raises:
        PlantFileError: the file can not be read, or something in it is wrong.
    """
    tree = read_tree(path, lambda text: _expanded(text, environ))
    problems = [*tree.problems, *_secrets(tree, folder or path.parent)]
    try:
        plant = Plant.model_validate(tree.values)
    except ValidationError as error:
        problems += _faults(error, tree)
        problems += _misfits(tree.values)
    except PlantError as error:
        problems += error.problems
    if not problems:
        return plant
    raise PlantFileError(path, list(_placed(problems, tree)))


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        escaped, name = found.groups()
        if escaped:
            return f"${{{name}}}"
        if not _VARIABLE_NAME.fullmatch(name):
            raise ValueError(f"'${{{name}}}' is not a variable; write ${{NAME}}")
        if name not in environ:
            raise ValueError(f"environment variable {name} is not set; set it and try again")
        return environ[name]

    return _VARIABLE.sub(value, text)


def _secrets(tree: Tree, folder: Path) -> Iterator[Problem]:
    """Put the content of secret files in place and refuse secrets in the file's own text."""
    for location, text in list(tree.texts.items()):
        name = location[-1] if location else None
        if name in _SECRETS and text and not _VARIABLE.search(text):
            yield Problem(
                location,
                f"a secret should not stand in this file; write ${{NAME}} or use {name}{_FILE}",
            )
        holder = _holder(tree.values, location)
        if holder is None or not isinstance(name, str) or not isinstance(holder.get(name), str):
            continue
        if name in _PATHS:
            holder[name] = str(folder / Path(holder[name]).expanduser())
        if name.endswith(_FILE) and name.removesuffix(_FILE) in _SECRETS:
            yield from _secret_file(tree, location, holder, folder)


def _secret_file(
    tree: Tree, location: Location, holder: dict[str, Any], folder: Path
) -> Iterator[Problem]:
    name = str(location[-1])
    secret = name.removesuffix(_FILE)
    secret_path = folder / Path(holder.pop(name)).expanduser()
    if secret in holder:
        yield Problem(location, f"'{secret}' is given too; keep one of the two")
        return
    try:
        holder[secret] = secret_path.read_text(encoding="utf-8").strip()
    except OSError as error:
        yield Problem(location, f"can not read '{secret_path}': {error.strerror}")
    except UnicodeDecodeError:
        yield Problem(location, f"'{secret_path}' is not UTF-8 text")
    else:
        tree.lines[*location[:-1], secret] = tree.line(location)
        if not holder[secret]:
            yield Problem(location, f"'{secret_path}' is empty")


def _holder(values: Any, location: Location) -> dict[str, Any] | None:
    """The mapping that a location stands in."""
    for part in location[:-1]:
        values = values[part]
    return values if isinstance(values, dict) else None


def _faults(error: ValidationError, tree: Tree) -> Iterator[Problem]:
    for fault in error.errors(include_url=False, include_input=False):
        tagged, context = fault["loc"], fault.get("ctx", {})
        location = _untagged(tagged)
        match fault["type"]:
            case "extra_forbidden":
                hint = nearest(str(location[-1]), _fields(tagged[:-1]))
                yield Problem(location, f"no such field; {hint}")
            case "union_tag_invalid":
                at = (*location, "kind")
                hint = nearest(tree.texts.get(at, ""), _SOURCE_KINDS)
                yield Problem(at, f"no such choice{_got(tree, at)}; {hint}")
            case "missing":
                yield Problem(location, "is missing")
            case "literal_error":
                choices = _QUOTED.findall(str(context["expected"]))
                hint = nearest(tree.texts.get(location, ""), choices)
                yield Problem(location, f"no such choice{_got(tree, location)}; {hint}")
            case "string_type" if location in tree.texts:
                message = f"should be text{_got(tree, location)}; put it in quotes"
                yield Problem(location, message)
            case kind:
                yield Problem(
                    location, _expectation(kind, fault["msg"], tagged) + _got(tree, location)
                )


def _untagged(location: Location) -> Location:
    """The location as it stands in the file, without the kind that was chosen for a source."""
    if location[:1] == ("sources",) and location[_SOURCE_DEPTH : _SOURCE_DEPTH + 1]:
        return (*location[:_SOURCE_DEPTH], *location[_SOURCE_DEPTH + 1 :])
    return location


def _expectation(kind: str, message: str, location: Location) -> str:
    match kind:
        case "model_type":
            return f"should hold fields: {', '.join(sorted(_fields(location)))}"
        case "tuple_type":
            return "should be a list"
    text = message.removeprefix("Value error, ").removeprefix("Input ")
    text = text.partition(", unable to parse")[0]
    return text[:1].lower() + text[1:]


def _got(tree: Tree, location: Location) -> str:
    """What the file says at a scalar: never the value that was put in its place."""
    if location not in tree.texts or _UNSAID.intersection(location):
        return ""
    text = tree.texts[location]
    return f"; got '{text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + '…'}'"


def _fields(location: Location) -> set[str]:
    """The names of the fields that may stand at a location of a plant file."""
    models: list[type[BaseModel]] = [Plant]
    for depth, part in enumerate(location):
        if depth == _SOURCE_DEPTH and part in _SOURCE_KINDS:
            models = [model for model in models if model.model_fields["kind"].default == part]
        elif isinstance(part, str):
            found = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [inner for field in found for inner in _models(field.annotation)]
    names = {field.alias or name for model in models for name, field in model.model_fields.items()}
    return names | {f"{name}{_FILE}" for name in names & _SECRETS}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _misfits(values: Any) -> Iterator[Problem]:
    """What does not fit together, as far as the rest of the file can be understood."""
    if not isinstance(values, dict):
        return
    lines = {
        i: LineOutline(line["name"], _text(line, "source"), _text(line, "topic") or TOPIC_SHAPE)
        for i, line in _entries(values, "lines")
        if _text(line, "name")
    }
    sources = {
        i: _text(source, "name") or _text(source, "kind") or "mqtt"
        for i, source in _entries(values, "sources")
    }
    patterns = {
        i: line
        for i, rule in _entries(values, "series")
        if (line := (_text(rule, "match") or "").partition("/")[0])
    }
    yield from misfits(sources or {0: "mqtt"}, lines, patterns)
    yield from node_misfits(
        outlined(_entries(values, "sources")),
        {line.name: line.source for line in lines.values()},
        sources.get(0),
    )


def _entries(values: dict[str, Any], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = values.get(name)
    for i, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield i, entry
        elif isinstance(entry, str):
            yield i, {"name": entry}


def _text(values: dict[str, Any], name: str) -> str | None:
    value = values.get(name)
    return value if isinstance(value, str) else None


def _placed(problems: list[Problem], tree: Tree) -> Iterator[Problem]:
    """The problems with their lines, one for each location."""
    seen: set[Location] = set()
    for problem in problems:
        if problem.location not in seen:
            seen.add(problem.location)
            yield problem._replace(line=problem.line or tree.line(problem.location))
