"""Which series differ: what the hashes of their rows say, however the rows stand."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.core import schema
from iiot_platform.engine.activity import NO_SERIES
from iiot_platform.engine.canonical import canonical_hash
from iiot_platform.engine.row_differences import differing_series, hash_of_each, series_columns
from tests.servers.effort import BROAD

TIMES = (0, 10_000, 20_000, 30_000)
FLOATS = (0.0, -0.0, 1.5, math.nan, float(np.array([0x7FF8000000000001], np.uint64).view("f8")[0]))


def values(kind: pa.DataType, *, nullable: bool) -> st.SearchStrategy[object]:
    found: st.SearchStrategy[object]
    if pa.types.is_floating(kind):
        found = st.sampled_from(FLOATS)
    elif pa.types.is_list(kind):
        found = st.lists(st.sampled_from(FLOATS), max_size=2)
    elif pa.types.is_timestamp(kind):
        found = st.sampled_from(TIMES)
    elif pa.types.is_string(kind):
        found = st.sampled_from(("a", "b"))
    elif pa.types.is_binary(kind):
        found = st.sampled_from((b"", b"\xff"))
    elif pa.types.is_boolean(kind):
        found = st.booleans()
    else:
        found = st.integers(0, 2)
    return found | st.none() if nullable else found


@st.composite
def versions(draw: st.DrawFn, table: schema.Table) -> tuple[pa.Table, pa.Table]:
    """A table's rows, and the same in another order with some left out, changed or added."""
    columns = [column for column in table.columns if column.role != "provenance"]
    row = st.tuples(*(values(column.type, nullable=column.nullable) for column in columns))
    old = draw(st.lists(row, max_size=8))
    new = draw(st.permutations(old)) if draw(st.booleans()) else list(old)
    for _ in range(draw(st.integers(0, 2))):
        if new and draw(st.booleans()):
            at, column = draw(st.integers(0, len(new) - 1)), draw(st.integers(0, len(columns) - 1))
            kind = columns[column]
            changed = draw(values(kind.type, nullable=kind.nullable))
            new[at] = (*new[at][:column], changed, *new[at][column + 1 :])
        else:
            new = new[1:] if draw(st.booleans()) else [*new, draw(row)]
    return rows_of(table, old), rows_of(table, new)


def rows_of(table: schema.Table, rows: list[tuple[object, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(table.content)
    return pa.table(
        [
            pa.array(list(column), field.type)
            for column, field in zip(columns, table.content, strict=True)
        ],
        schema=table.content,
    )


def by_hash(table: schema.Table, old: pa.Table, new: pa.Table) -> list[str]:
    """The naive twin."""
    columns = series_columns(table)
    if not columns:
        return [NO_SERIES] if canonical_hash(table, old) != canonical_hash(table, new) else []
    before, after = (hash_of_each(table, rows, columns) for rows in (old, new))
    return sorted(n for n in {*before, *after} if before.get(n) != after.get(n))


@pytest.mark.parametrize("name", ["readings", "signals", "valve_anomalies", "activity"])
@BROAD
@given(data=st.data())
def test_as_the_hashes_say(name: str, data: st.DataObject) -> None:
    table = schema.TABLES[name]
    old, new = data.draw(versions(table))
    assert differing_series(table, old, new) == by_hash(table, old, new)


def signals(order: list[int], *, changed: int | None = None) -> pa.Table:
    """Thirty rows of three series of two machines."""
    rows = [
        (i * 1_000, "line1", "ab"[i % 3 == 0], f"s{i % 3}", -0.0 if i == changed else 0.0)
        for i in order
    ]
    return rows_of(schema.SIGNALS, rows)  # type: ignore[arg-type] # rows of this table


def test_one_changed_bit_names_its_series_whatever_the_order() -> None:
    whole, parts = list(range(30)), [*range(20, 30), *range(20)]
    assert differing_series(schema.SIGNALS, signals(whole), signals(parts)) == []
    for order in (whole, parts):
        found = differing_series(schema.SIGNALS, signals(whole), signals(order, changed=7))
        assert found == ["signal/a/s1/"]


def test_a_series_that_is_gone_or_new_differs() -> None:
    rows = signals(list(range(30)))
    without = rows.filter(pa.array([i % 3 != 0 for i in range(30)]))
    assert differing_series(schema.SIGNALS, rows, without) == ["signal/b/s0/"]
    assert differing_series(schema.SIGNALS, without, rows) == ["signal/b/s0/"]
