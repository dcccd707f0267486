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
    """The rows of one query's table behind a panel's transformations; times are Unix ms.

    Where tags become labels, each row keeps its own beside its columns.
    """
    found = [{"Time" if name == "time" else name: v for name, v in row.items()} for row in rows]
    types = {"Time": "time"}
    for step in panel.get("transformations", ()):
        if step.get("filter", {"options": ref})["options"] != ref:
            continue
        options = step["options"]
        if step["id"] == "organize":
            found = [_ordered(options, row) for row in found]
        elif step["id"] == "calculateField":
            found = [row | {options["alias"]: _sum(options, row)} for row in found]
        elif step["id"] == "partitionByValues":
            assert options["naming"] == {"asLabels": True}
            assert all(set(options["fields"]) <= row.keys() for row in found)
        else:
            assert step["id"] == "convertFieldType", step["id"]
            for one in options["conversions"]:
                found = [_converted(one, types, row) for row in found]
                types[one["targetField"]] = one["destinationType"]
    return found


def _ordered(options: Mapping[str, Any], row: Row) -> Row:
    places = options["indexByName"]
    assert set(options) == {"indexByName"}
    return dict(sorted(row.items(), key=lambda item: places.get(item[0], len(places))))


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


def marks(series: Sequence[Mapping[str, Any]], target: Mapping[str, Any]) -> list[Row]:
    """What an annotation marks in charts, by its words; times are Unix ms.

    The answer's columns are called `<measurement>.<column>`. Grafana takes the time for the title
    and the end of a mark whose column it does not find, and leaves rows out that lack a value.
    """
    assert target["fromAnnotations"]
    found = []
    for one in series:
        assert "tags" not in one
        columns = ["Time", *(f"{one['name']}.{column}" for column in one["columns"][1:])]
        for row in one["values"]:
            if None not in row:
                made = {
                    word: row[columns.index(name) if name in columns else 0]
                    for word in ("title", "text", "tags", "timeEnd")
                    for name in [target.get(f"{word}Column")]
                }
                found.append(made | {"time": row[0]})
    return found


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
