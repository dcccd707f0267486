import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from iiot_platform.core import schema
from iiot_platform.core.errors import SinkError
from iiot_platform.sinks.influxdb import InfluxSink
from iiot_platform.sinks.refusals import RefusedRowsError
from iiot_platform.sinks.sink import Written
from tests.reference.line_protocol_rows import Point, expected
from tests.reference.table_rows import make_rows
from tests.servers import influx
from tests.servers.influx import Influx

START_MS = 1_795_338_000_000
NASTY = [
    "plain",
    "a,b",
    "a b",
    "a=b",
    "a\\",
    "a\\\\",
    "a\\,b",
    "\\ ",
    "line\nbreak",
    "tab\there",
    "🏭 ü",
    '"quoted"',
    "it's",
    "#hash",
    " lead",
    "",
]
MEASURED = tuple(schema.measured())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    influx.require()
    with influx.server(tmp_path_factory.mktemp("influx"), max_body_bytes=400_000) as running:
        yield running


@pytest.fixture
def server(shared: Influx) -> Influx:
    """Without the faults of the test before."""
    if shared.faults is not None:
        shared.faults.clear()
    return shared


@pytest.fixture
def sink(server: Influx) -> Iterator[InfluxSink]:
    with InfluxSink(server.settings, timeout_s=5.0, retry_for_s=1.0) as ready:
        yield ready


@pytest.fixture
def faults(server: Influx) -> influx.Faults:
    if server.faults is None:
        pytest.skip("faults can be injected only into the front that the tests own")
    return server.faults


@pytest.fixture
def line() -> str:
    return f"line {uuid.uuid4().hex}"


def stored(server: Influx, table: schema.Table, line: str) -> list[Point]:
    """What the server holds of a line, as the naive twin would say it."""
    tags = table.names("tag")
    names = table.names("field", "provenance")
    points = []
    where = f"WHERE \"line_name\" = '{line}' GROUP BY {', '.join(tags)}"
    for series in server.series(f'SELECT * FROM "{table.measurement}" {where}'):
        for row in influx.series_rows(series):
            fields = {n: typed(table, n, row[n]) for n in names if row.get(n) is not None}
            points.append(
                Point(series["name"], {n: row[n] for n in tags if row[n]}, fields, row["time"])
            )
    return sorted(points, key=lambda p: (p.ts_ms, str(p.tags)))


def typed(table: schema.Table, name: str, value: Any) -> Any:
    return float(value) if table.column(name).type == schema.FLOAT else value


@pytest.mark.parametrize("table", MEASURED, ids=lambda t: t.name)
def test_a_written_table_reads_back_row_by_row(
    server: Influx, sink: InfluxSink, line: str, table: schema.Table
) -> None:
    count = 2 * len(NASTY)
    columns: dict[str, Any] = {
        name: [*NASTY, *reversed(NASTY)] for name in table.names("tag") if name != "line_name"
    }
    first_float = next((c.name for c in table.columns if c.type == schema.FLOAT), None)
    if first_float is not None:
        edges = [None, 5e-324, 1e300, -1e-7]
        columns[first_float] = [float(i) / 3 for i in range(count - len(edges))] + edges
    columns["run_id"] = [f"{text}x\\" for text in columns.get("machine_name", ["r"] * count)]
    rows = make_rows(table, count, line=line, **columns)
    want = [point for _, point in expected(table, rows)]
    assert sink.write(table, rows) == Written(len(want), count - len(want))
    assert stored(server, table, line) == sorted(want, key=lambda p: (p.ts_ms, str(p.tags)))


def test_more_than_one_request_and_bodies_too_large_for_the_server(
    server: Influx, sink: InfluxSink, line: str
) -> None:
    rows = make_rows(schema.SIGNALS, 12_001, line=line)  # 5,000 points are more than 400 kB
    assert sink.write(schema.SIGNALS, rows).points == 12_001
    count = server.query(f'SELECT count("value") FROM "GenericSensor" WHERE line_name=\'{line}\'')
    assert count[0]["count"] == 12_001


def test_a_range_is_deleted_half_open_and_of_one_line_alone(
    server: Influx, sink: InfluxSink, line: str
) -> None:
    other = f"{line} other"
    quoted = f"it's a\\{line}\\"
    for name in (line, other, quoted):
        sink.write(schema.SIGNALS, make_rows(schema.SIGNALS, 10, line=name))
    sink.delete_range(schema.SIGNALS, line, START_MS + 2_000, START_MS + 5_000)
    sink.delete_range(schema.SIGNALS, quoted, START_MS, START_MS + 9_000)
    seconds = [(p.ts_ms - START_MS) // 1_000 for p in stored(server, schema.SIGNALS, line)]
    assert seconds == [0, 1, 5, 6, 7, 8, 9]
    assert len(stored(server, schema.SIGNALS, other)) == 10
    rest = stored(
        server, schema.SIGNALS, quoted.replace("\\", "\\\\").replace("'", "\\'")[:-2] + "%5C"
    )
    assert [p.ts_ms - START_MS for p in rest] == [9_000]


def test_deleting_what_was_never_written_is_no_error(sink: InfluxSink, line: str) -> None:
    sink.delete_range(schema.LINE_SUMMARY, line, START_MS, START_MS + 1)


def test_a_wrong_token_is_named_but_not_shown(server: Influx, line: str) -> None:
    settings = replace(server.settings, token=SecretStr("not-the-token"))
    with InfluxSink(settings, retry_for_s=0.1) as sink:
        with pytest.raises(SinkError, match=r"answers 401: .*INFLUX_TOKEN") as writing:
            sink.write(schema.SIGNALS, make_rows(schema.SIGNALS, 1, line=line))
        with pytest.raises(SinkError, match=r"answers 401: .*INFLUX_TOKEN") as deleting:
            sink.delete_range(schema.SIGNALS, line, 0, 1)
    assert "not-the-token" not in f"{writing.value} {deleting.value}"


def test_a_missing_bucket_is_named(server: Influx, line: str) -> None:
    with (
        InfluxSink(replace(server.settings, bucket="nowhere"), retry_for_s=0.1) as sink,
        pytest.raises(SinkError, match=r"answers 404: .*create bucket 'nowhere'"),
    ):
        sink.write(schema.SIGNALS, make_rows(schema.SIGNALS, 1, line=line))


def test_a_type_conflict_names_table_and_row_and_stores_the_rest(
    server: Influx, sink: InfluxSink, line: str
) -> None:
    table = replace(schema.SIGNALS, measurement=f"Conflict{uuid.uuid4().hex}")
    sink.write(table, make_rows(table, 3, line=line))
    counted = tuple(replace(c, type=schema.INT) if c.name == "value" else c for c in table.columns)
    whole = replace(table, columns=counted)
    rows = make_rows(whole, 5_003, line=line, value=[None] * 5_001 + [1, 2])
    filled = replace(
        whole, columns=tuple(replace(c, role="field") if c.name == "run_id" else c for c in counted)
    )
    with pytest.raises(RefusedRowsError, match=r"'signals': .*type conflict.*row 5001") as refused:
        sink.write(filled, rows)
    assert (refused.value.row, refused.value.points) == (5_001, 2)
    assert "value=1i" in refused.value.line
    assert len(stored(server, table, line)) == 5_001


def test_a_short_outage_is_bridged_without_loss_or_double(
    server: Influx, sink: InfluxSink, faults: influx.Faults, line: str
) -> None:
    faults.cut_before["/api/v2/write"] = 1
    faults.cut_after["/api/v2/write"] = 1
    assert sink.write(schema.SIGNALS, make_rows(schema.SIGNALS, 5, line=line)).points == 5
    assert faults.paths() == ["/api/v2/write"] * 3
    assert len(stored(server, schema.SIGNALS, line)) == 5


def test_a_server_that_hangs_costs_a_bounded_time(
    server: Influx, sink: InfluxSink, faults: influx.Faults, line: str
) -> None:
    faults.delay_s = 1.0
    started = time.monotonic()
    with (
        InfluxSink(server.settings, timeout_s=0.2, retry_for_s=2.0) as hasty,
        pytest.raises(SinkError, match=r"does not answer \(ReadTimeoutError"),
    ):
        hasty.write(schema.SIGNALS, make_rows(schema.SIGNALS, 1, line=line))
    assert time.monotonic() - started < 60.0
    assert len(faults.seen) > 1
    faults.delay_s = 0.0
    assert sink.ping().startswith(("1.", "v2.", "3."))


def test_nobody_at_the_address_is_said_so(server: Influx) -> None:
    url = f"http://127.0.0.1:{influx.free_port()}"
    settings = replace(server.settings, url=url.replace("//", "//user:secret@"))
    with (
        InfluxSink(settings, retry_for_s=0.1) as sink,
        pytest.raises(SinkError, match=f"InfluxDB at {url} does not answer") as error,
    ):
        sink.ping()
    assert "secret" not in str(error.value)
