"""Rows that are gone, in a database that can not delete: overwritten as deleted.

Which they are is asked of the database itself, so that it needs no memory of what was written: a
rewrite that was interrupted, or of an hour whose old files are gone, ends in the same state.

A field that a row leaves empty can not be overwritten: there is no null to write, and any value in
its place would be taken for one by whoever does not know of it. What keeps an old value is counted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from iiot_platform.core import schema
from iiot_platform.sinks.line_protocol import head, tag_text

_ASKED = schema.PROVENANCE[0].name
"""A field that every row has, whatever else it leaves empty."""


def within(line: str, start_ms: int, end_ms: int) -> str:
    """The InfluxQL condition for a line's rows of [start_ms, end_ms)."""
    quoted = tag_text(line).replace("\\", "\\\\").replace("'", "\\'")
    return f"\"{schema.LINE.name}\" = '{quoted}' AND time >= {start_ms}ms AND time < {end_ms}ms"


def left_empty(table: schema.Table, rows: pa.Table) -> tuple[str, ...]:
    """The fields that some of the rows leave empty: null, NaN or infinite."""
    return tuple(
        name
        for name in table.names("field")
        if rows.num_rows and not pc.all(_stored(rows.column(name))).as_py()
    )


def standing_query(
    table: schema.Table, line: str, start_ms: int, end_ms: int, fields: Sequence[str] = ()
) -> str:
    """InfluxQL for time, tags and some fields of all that a line has in [start_ms, end_ms)."""
    names = ", ".join(f'"{name}"' for name in (_ASKED, *table.names("tag"), *fields))
    return f'SELECT {names} FROM "{table.measurement}" WHERE {within(line, start_ms, end_ms)}'


def tombstones(table: schema.Table, rows: pa.Table, answer: dict[str, Any]) -> list[str]:
    """A line of protocol for each row of an answer to `standing_query` that is not among rows."""
    tags = table.names("tag")
    kept = set(_keys(table, rows))
    marks = ",".join(f'{name}="{schema.DELETED}"' for name in dict.fromkeys((table.mark, _ASKED)))
    return [
        f"{head(table, dict(zip(tags, key[1:], strict=True)))} {marks} {key[0]}\n"
        for key, (run,) in _standing(table, answer, (_ASKED,))
        if run != schema.DELETED and key not in kept
    ]


def old_values(
    table: schema.Table, rows: pa.Table, answer: dict[str, Any], fields: Sequence[str]
) -> Counter[str]:
    """By field, how many rows leave it empty that have a value in an answer to `standing_query`."""
    if not fields:
        return Counter()
    empty = {name: pc.invert(_stored(rows.column(name))).to_pylist() for name in fields}
    place = {key: row for row, key in enumerate(_keys(table, rows))}
    return Counter(
        name
        for key, values in _standing(table, answer, fields)
        if key in place
        for name, value in zip(fields, values, strict=True)
        if value is not None and empty[name][place[key]]
    )


def _standing(
    table: schema.Table, answer: dict[str, Any], fields: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], list[Any]]]:
    """Key and fields of each row of an answer; a field that the database does not know is None."""
    tags = table.names("tag")
    for result in answer.get("results", ()):
        for series in result.get("series", ()):
            columns = {name: place for place, name in enumerate(series["columns"])}
            places = [columns["time"], *(columns[name] for name in tags)]
            asked = [columns.get(name) for name in fields]
            for values in series["values"]:
                at, *found = (values[place] for place in places)
                yield (
                    (at, *(value or "" for value in found)),
                    [None if place is None else values[place] for place in asked],
                )


def _stored(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where a field has a value that can be stored."""
    if values.type == schema.FLOAT:
        return pc.fill_null(pc.is_finite(values), fill_value=False)
    return pc.is_valid(values)


def _keys(table: schema.Table, rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Time and tags of rows as a database has them."""
    times = rows.column("ts").cast(pa.int64()).to_pylist()
    tags = [
        [tag_text(value) if value else "" for value in rows.column(name).to_pylist()]
        for name in table.names("tag")
    ]
    return zip(times, *tags, strict=True)
