"""Command lines of `iiot` as texts name them, parsed by the command line itself and not run."""

import ast
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer.main

from iiot_platform.cli.app import COMMANDS, frame

ROOT: Final = Path(__file__).resolve().parents[2]
_PROGRAM: Final = "iiot"
_PLACE: Final = "x"
"""What stands for a value that a text leaves open."""
_FENCE: Final = re.compile(r"```(?:sh|bash)\n(.*?)```", re.DOTALL)
_SPAN: Final = re.compile(r"`+(iiot [^`]+)`+")
_QUOTED: Final = re.compile(r"'(iiot (?:[^']|'\{[^}]*\}')+)'|`(iiot [^`]+)`")
_CHOICE: Final = re.compile(r"\S+(?:\s*\|\s*[^\s|]+)+")


def complaint(line: str, *, complete: bool = False) -> str | None:
    """What the command line says against a command line; None: nothing.

    Args:
        line: from `iiot` on, quoted for a shell.
        complete: True: it is to run as it stands; else it may name a command or a group of them
            and leave out what is required.
    """
    words = shlex.split(line, comments=True)[1:]
    if words == ["--help"]:
        return None
    if not words or words[0] not in COMMANDS:
        return f"'{line}': no such command"
    app: Any = typer.main.get_command(frame(words[0]))
    left, command = list(words), app
    while left and left[0] in getattr(command, "commands", {}):
        command = command.commands[left.pop(0)]
    if hasattr(command, "commands"):
        if not left and not complete:
            return None
        return f"'{line}' names no command of the group"
    command.callback = _nothing
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            app.main(words, prog_name=_PROGRAM, obj={})
    except SystemExit as end:
        if end.code in {0, None} or (not complete and _left_open(said.getvalue())):
            return None
    return f"'{line}': {said.getvalue()}"


def _left_open(said: str) -> bool:
    return "Missing" in said or "requires an argument" in said


def _nothing(**_given: object) -> None:
    pass


def of_markdown(text: str) -> Iterator[tuple[str, bool]]:
    """Command lines of a document, and whether each is to run as it stands."""
    for block in _FENCE.findall(text):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            words = line.split()
            while words and re.match(r"[A-Z_]+=|sudo$", words[0]):
                words.pop(0)
            if words[:1] == [_PROGRAM]:
                yield line[line.index(_PROGRAM + " ") :], True
    for span in _SPAN.findall(_FENCE.sub("", text)):
        line = " ".join(span.split())
        choice = _CHOICE.search(line)
        for word in choice[0].split("|") if choice else ():
            yield line.replace(choice[0], word.strip()), False
        if choice is None:
            yield line, False


def of_python(text: str) -> Iterator[str]:
    """Command lines between quotes in a module's texts; values that are filled in stand open."""
    for node in ast.walk(ast.parse(text)):
        for found in _QUOTED.findall(_literal(node)):
            yield " ".join((found[0] or found[1]).split()).replace(f"'{_PLACE}'", _PLACE)


def of_template(text: str) -> Iterator[str]:
    """Command lines of an alert's text, what is filled in left open."""
    yield from _SPAN.findall(re.sub(r"\{\{.*?\}\}", _PLACE, text))


def _literal(node: Any) -> str:
    match node:
        case ast.Constant(value=str() as value):
            return value
        case ast.JoinedStr():
            parts = (getattr(part, "value", "") for part in node.values)
            return "".join(part if isinstance(part, str) else _PLACE for part in parts)
        case _:
            return ""
