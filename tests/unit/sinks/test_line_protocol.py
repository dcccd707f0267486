import math
import struct
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from iiot_platform.core import schema
from iiot_platform.sinks.line_protocol import render
from iiot_platform.sinks.refusals import RefusedError
from tests.reference.line_protocol_rows import expected, read_points
from tests.servers.effort import BROAD

AWKWARD = [
    *("plain", "", "\\", "a\\", "a\\\\", ",", "=", " ", "\n", "\r\n", '"', "🏭", "a\\,b", "%5C"),
    *("tab\there", "\\ "),
]
TEXTS = st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(codec="utf-8"), max_size=8))
QUICKLY_TOLD = (Phase.explicit, Phase.reuse, Phase.generate)
"""A failing table is shown as found: to shrink one takes minutes."""
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    schema.FLOAT: st.none() | st.floats(),
    schema.INT: st.none() | st.integers(-(2**63), 2**63 - 1),
    schema.TEXT: st.none() | TEXTS,
    schema.TS: st.integers(-(10**12), 4 * 10**12),
}
MEASURED = tuple(schema.measured())


def tables(table: schema.Table, max_rows: int = 12) -> st.SearchStrategy[pa.Table]:
    row = st.tuples(*(VALUES[c.type] for c in table.columns))
    return st.lists(row, max_size=max_rows).map(
        lambda rows: pa.table(
            {c.name: pa.array([r[i] for r in rows], c.type) for i, c in enumerate(table.columns)}
        )
    )


def signals(**columns: Any) -> pa.Table:
    base = {
        "ts": [1_790_000_000_000],
        "line_name": ["line1"],
        "machine_name": ["press 1"],
        "sensor_name": ["temp,inlet"],
        "value": [21.3],
        "run_id": ["r1"],
        "config_version": ["c1"],
    } | columns
    count = max(len(v) for v in base.values())
    return pa.table(
        {
            c.name: pa.array(base[c.name] * (count if len(base[c.name]) == 1 else 1), c.type)
            for c in schema.SIGNALS.columns
        }
    )


def same_bits(got: Any, want: Any) -> bool:
    if isinstance(want, float):
        return isinstance(got, float) and struct.pack("<d", got) == struct.pack("<d", want)
    return type(got) is type(want) and bool(got == want)


def check(table: schema.Table, rows: pa.Table) -> None:
    lines = render(table, rows)
    want = expected(table, rows)
    got = read_points(lines.body().decode())
    assert lines.rows.tolist() == [row for row, _ in want]
    assert lines.dropped == rows.num_rows - len(want)
    for point, (_, wanted) in zip(got, want, strict=True):
        assert point._replace(fields={}) == wanted._replace(fields={})
        assert point.fields.keys() == wanted.fields.keys()
        for name, value in wanted.fields.items():
            assert same_bits(point.fields[name], value), (name, point.fields[name], value)


def test_a_point_as_it_goes_over_the_wire() -> None:
    assert render(schema.SIGNALS, signals()).body() == (
        b"GenericSensor,line_name=line1,machine_name=press\\ 1,sensor_name=temp\\,inlet "
        b'value=21.3,run_id="r1",config_version="c1" 1790000000000\n'
    )


def test_awkward_names_and_gaps_equal_the_naive_twin() -> None:
    count = len(AWKWARD)
    rows = signals(
        ts=list(range(count)),
        machine_name=AWKWARD,
        sensor_name=AWKWARD[::-1],
        run_id=AWKWARD,
        value=[1 / 3, None] * (count // 2),
    )
    check(schema.SIGNALS, rows)
    check(schema.SIGNALS, rows.set_column(5, "run_id", pa.array([None, *AWKWARD[1:]])))
    check(schema.STATES, states_with_gaps())


def states_with_gaps() -> pa.Table:
    """Rows of which no field is complete, with one that has none at all."""
    texts = [["m"] * 4] * 3
    values: list[list[Any]] = [[1, None, 3, None], [None, 2, 3, None], [0.5, None, None, math.nan]]
    data = [[1, 2, 3, 4], *texts, *values, [None] * 4, ["c", None, None, "c"]]
    columns = schema.STATES.columns
    return pa.table({c.name: pa.array(v, c.type) for c, v in zip(columns, data, strict=True)})


@settings(BROAD, phases=QUICKLY_TOLD)
@given(rows=tables(schema.VALVE_ANOMALIES))
def test_rows_equal_the_naive_twin(rows: pa.Table) -> None:
    check(schema.VALVE_ANOMALIES, rows)


@settings(BROAD, phases=QUICKLY_TOLD)
@given(rows=tables(schema.SIGNALS, max_rows=40))
def test_short_rows_equal_the_naive_twin(rows: pa.Table) -> None:
    check(schema.SIGNALS, rows)


@pytest.mark.parametrize("table", MEASURED, ids=lambda t: t.name)
@settings(BROAD, phases=QUICKLY_TOLD)
@given(data=st.data())
def test_every_measured_table_is_rendered(table: schema.Table, data: st.DataObject) -> None:
    check(table, data.draw(tables(table, max_rows=3)))


@given(st.integers(0, 2**64 - 1))
@example(struct.unpack("<Q", struct.pack("<d", -0.0))[0])
@example(1)
@example(struct.unpack("<Q", struct.pack("<d", 9007199254740993.0))[0])
def test_floats_read_back_to_the_same_bits(bits: int) -> None:
    value = struct.unpack("<d", struct.pack("<Q", bits))[0]
    points = read_points(render(schema.SIGNALS, signals(value=[value])).body().decode())
    if math.isfinite(value):
        assert same_bits(points[0].fields["value"], value)
    else:
        assert points == []


def test_a_row_without_a_field_is_dropped_and_counted() -> None:
    lines = render(schema.SIGNALS, signals(value=[None, 1.0, math.nan, math.inf, 2.0]))
    assert (len(lines), lines.dropped, lines.rows.tolist()) == (2, 3, [1, 4])
    assert b"nan" not in lines.body().lower()
    assert b"inf" not in lines.body().replace(b"inlet", b"").lower()


def test_no_rows_and_no_storable_rows_are_an_empty_body() -> None:
    assert render(schema.SIGNALS, signals().slice(0, 0)).body() == b""
    assert render(schema.SIGNALS, signals(value=[None])).body() == b""


def test_layout_of_the_arrow_table_does_not_matter() -> None:
    rows = signals(
        ts=list(range(30)),
        sensor_name=[f"s{i % 7}" for i in range(30)],
        value=[None, 1.5, 2.0] * 10,
    )
    plain = render(schema.SIGNALS, rows.slice(3, 20)).body()
    chunked = pa.concat_tables([rows.slice(3, 5), rows.slice(8, 0), rows.slice(8, 15)])
    place = rows.column_names.index("sensor_name")
    coded = rows.set_column(place, "sensor_name", rows.column("sensor_name").dictionary_encode())
    assert render(schema.SIGNALS, chunked).body() == plain
    assert render(schema.SIGNALS, coded.slice(3, 20)).body() == plain
    parts = [part.combine_chunks() for part in (rows.slice(3, 5), rows.slice(8, 15))]
    each = [
        part.set_column(place, "sensor_name", part.column("sensor_name").dictionary_encode())
        for part in parts
    ]
    assert render(schema.SIGNALS, pa.concat_tables(each)).body() == plain


def test_a_field_that_is_the_same_in_every_row_is_so_bit_for_bit() -> None:
    for values in ([0.0, -0.0], [-0.0, -0.0], [math.nan, math.nan], [None, None], [2.5, 2.5]):
        check(schema.SIGNALS, signals(ts=[1, 2], value=values))


def test_gaps_in_coded_columns_are_left_out() -> None:
    rows = signals(ts=[1, 2, 3], sensor_name=["a", None, "b"], run_id=["r", None, "r"])
    coded = rows
    for name in ("sensor_name", "run_id", "config_version"):
        place = rows.column_names.index(name)
        coded = coded.set_column(place, name, rows.column(name).dictionary_encode())
    assert render(schema.SIGNALS, coded).body() == render(schema.SIGNALS, rows).body()
    assert b"None" not in render(schema.SIGNALS, coded).body()


def test_times_of_another_unit_are_brought_to_milliseconds() -> None:
    moment = datetime(2026, 11, 22, 9, 0, 0, 123_000, tzinfo=UTC)
    rows = signals().set_column(0, "ts", pa.array([moment], pa.timestamp("us", "UTC")))
    assert render(schema.SIGNALS, rows).body().endswith(b" 1795338000123\n")


def test_requests_keep_both_limits() -> None:
    lines = render(schema.SIGNALS, signals(ts=list(range(1_000))))
    size = len(lines.body(0, 1))
    by_points = list(lines.requests(300, 10**9))
    assert by_points == [(0, 300), (300, 600), (600, 900), (900, 1_000)]
    parts = [lines.body(*part) for part in lines.requests(10**9, 10 * size)]
    assert b"".join(parts) == lines.body()
    assert max(len(part) for part in parts) <= 10 * size
    assert [stop - start for start, stop in lines.requests(10, 1)] == [1] * 1_000


def test_a_table_without_measurement_is_refused() -> None:
    with pytest.raises(RefusedError, match="'quarantine' has no InfluxDB measurement"):
        render(schema.QUARANTINE, signals())


def test_a_missing_column_is_named() -> None:
    with pytest.raises(RefusedError, match="'signals' lack the column 'value'"):
        render(schema.SIGNALS, signals().drop_columns(["value"]))


def test_a_column_of_another_type_is_refused() -> None:
    rows = signals()
    place = rows.column_names.index("value")
    with pytest.raises(RefusedError, match="column 'value' of table 'signals' is string"):
        render(schema.SIGNALS, rows.set_column(place, "value", pa.array(["warm"])))
