"""The naive twin of the renderer: what each row should be, and a reader that goes by character."""

import math
from typing import Any, NamedTuple

import pyarrow as pa

from iiot_platform.core import schema


class Point(NamedTuple):
    measurement: str
    tags: dict[str, str]
    fields: dict[str, Any]
    ts_ms: int


def expected(table: schema.Table, rows: pa.Table) -> list[tuple[int, Point]]:
    """The points that rows should become, each with its row."""
    points = []
    for row, values in enumerate(rows.to_pylist()):
        fields = {n: values[n] for n in table.names("field") if _storable(values[n])}
        if not fields:
            continue
        fields |= {n: values[n] for n in table.names("provenance") if _storable(values[n])}
        tags = {n: _tag(values[n]) for n in table.names("tag") if values[n]}
        ts_ms = round(values["ts"].timestamp() * 1_000)
        points.append((row, Point(str(table.measurement), tags, fields, ts_ms)))
    return points


def _storable(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _tag(value: str) -> str:
    end = len(value)
    while end and value[end - 1] == "\\":
        end -= 1
    text = value[:end] + "%5C" * (len(value) - end)
    return "".join({"\n": "%0A", "\r": "%0D"}.get(c, c) for c in text)


def read_points(text: str) -> list[Point]:
    """Line protocol as the servers read it; a line break inside quotes belongs to its string."""
    points = []
    at = 0
    while at < len(text):
        measurement, at = _word(text, at, ", ")
        tags: dict[str, str] = {}
        while text[at] == ",":
            name, at = _word(text, at + 1, "=")
            tags[name], at = _word(text, at + 1, ", ")
        fields: dict[str, Any] = {}
        separator = " "
        while text[at] == separator:
            name, at = _word(text, at + 1, "=")
            assert name not in fields
            fields[name], at = _value(text, at + 1)
            separator = ","
        end = text.index("\n", at)
        points.append(Point(measurement, tags, fields, int(text[at + 1 : end])))
        at = end + 1
    return points


def _word(text: str, at: int, stops: str) -> tuple[str, int]:
    word = ""
    while text[at] not in stops:
        if text[at] == "\\" and text[at + 1] in ", =":
            at += 1
        assert text[at] != "\n"
        word += text[at]
        at += 1
    return word, at


def _value(text: str, at: int) -> tuple[Any, int]:
    if text[at] == '"':
        word = ""
        at += 1
        while text[at] != '"':
            if text[at] == "\\" and text[at + 1] in '"\\':
                at += 1
            word += text[at]
            at += 1
        return word, at + 1
    word, at = _word(text, at, ", ")
    return (int(word[:-1]) if word.endswith("i") else float(word)), at
