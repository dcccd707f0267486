"""What Grafana makes of a table before it draws it, and of a link: the steps that are used here."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

Row = dict[str, Any]
_LINK = re.compile(r"\$\{(\w+)(?:\.([^:}]+))?(?::(\w+))?\}")
_MOMENT = {"YYYY": "%Y", "MM": "%m", "DD": "%d", "HH": "%H", "mm": "%M"}


def transformed(rows: Sequence[Mapping[str, Any]], panel: Mapping[str, Any], ref: str) -> list[Row]:
    """The rows of one query's table behind a panel's transformations; times are Unix ms."""
    found = [{"Time" if name == "time" else name: v for name, v in row.items()} for row in rows]
    types = {"Time": "time"}
    for step in panel.get("transformations", ()):
        if step.get("filter", {"options": ref})["options"] != ref:
            continue
        options = step["options"]
        if step["id"] == "calculateField":
            found = [row | {options["alias"]: _sum(options, row)} for row in found]
        else:
            assert step["id"] == "convertFieldType", step["id"]
            for one in options["conversions"]:
                found = [_converted(one, types, row) for row in found]
                types[one["targetField"]] = one["destinationType"]
    return found


def _sum(options: Mapping[str, Any], row: Row) -> float:
    assert options["mode"] == "binary"
    assert options["replaceFields"] is False
    terms = options["binary"]
    assert terms["operator"] == "+"
    assert terms["left"]["matcher"]["id"] == "byName"
    value: float = row[terms["left"]["matcher"]["options"]] + float(terms["right"]["fixed"])
    return value


def _converted(one: Mapping[str, Any], types: Mapping[str, str], row: Row) -> Row:
    name = one["targetField"]
    if one["destinationType"] == "time":
        return row
    assert (one["destinationType"], one["timezone"], types[name]) == ("string", "utc", "time")
    shown = re.sub("|".join(_MOMENT), lambda word: _MOMENT[word[0]], one["dateFormat"])
    return row | {name: f"{datetime.fromtimestamp(row[name] / 1_000, UTC):{shown}}"}


def links(panel: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The columns of a panel that have links, with each link; all columns: an empty name."""
    for link in panel["fieldConfig"]["defaults"].get("links", ()):
        yield "", link
    for override in panel["fieldConfig"]["overrides"]:
        for one in override["properties"]:
            if one["id"] == "links":
                for link in one["value"]:
                    yield override["matcher"]["options"], link


def followed(url: str, column: str, row: Row, variables: Mapping[str, str]) -> str:
    """The address that a link of a column leads to from a row."""

    def value(found: re.Match[str]) -> str:
        name, path, how = found[1], found[2] or "", found[3]
        if name == "__value":
            assert path == "raw"
            text = row[column]
        elif name == "__field":
            text = row[path.removeprefix("labels.")]
        elif name == "__data":
            text = row[path.removeprefix("fields.")]
        else:
            text = variables[name]
        return quote(str(text), safe="") if how == "percentencode" else str(text)

    return _LINK.sub(value, url)
