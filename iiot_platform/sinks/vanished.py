"""Rows that are gone, in a database that can not delete: overwritten as deleted.

Which they are is asked of the database itself, so that it needs no memory of what was written: a
rewrite that was interrupted, or of an hour whose old files are gone, ends in the same state.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from iiot_platform.core import schema
from iiot_platform.sinks.line_protocol import head, tag_text

_ASKED = schema.PROVENANCE[0].name
"""A field that every row has, whatever else it leaves empty."""


def within(line: str, start_ms: int, end_ms: int) -> str:
    """The InfluxQL condition for a line's rows of [start_ms, end_ms)."""
    quoted = tag_text(line).replace("\\", "\\\\").replace("'", "\\'")
    return f"\"{schema.LINE.name}\" = '{quoted}' AND time >= {start_ms}ms AND time < {end_ms}ms"


def standing_query(table: schema.Table, line: str, start_ms: int, end_ms: int) -> str:
    """InfluxQL for the time and tags of all that a line has in [start_ms, end_ms)."""
    names = ", ".join(f'"{name}"' for name in (_ASKED, *table.names("tag")))
    return f'SELECT {names} FROM "{table.measurement}" WHERE {within(line, start_ms, end_ms)}'


def tombstones(table: schema.Table, rows: pa.Table, answer: dict[str, Any]) -> list[str]:
    """A line of protocol for each row of an answer to `standing_query` that is not among rows."""
    tags = table.names("tag")
    kept = set(_keys(table, rows))
    marks = ",".join(f'{name}="{schema.DELETED}"' for name in dict.fromkeys((table.mark, _ASKED)))
    lines = []
    for result in answer.get("results", ()):
        for series in result.get("series", ()):
            places = [series["columns"].index(name) for name in ("time", _ASKED, *tags)]
            for values in series["values"]:
                at, run, *found = (values[place] for place in places)
                key = (at, *(value or "" for value in found))
                if run != schema.DELETED and key not in kept:
                    lines.append(
                        f"{head(table, dict(zip(tags, key[1:], strict=True)))} {marks} {at}\n"
                    )
    return lines


def _keys(table: schema.Table, rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Time and tags of rows as a database has them."""
    times = rows.column("ts").cast(pa.int64()).to_pylist()
    tags = [
        [tag_text(value) if value else "" for value in rows.column(name).to_pylist()]
        for name in table.names("tag")
    ]
    return zip(times, *tags, strict=True)
