"""What is InfluxDB's alone: rewrites on versions that can not delete, compressed requests."""

from collections.abc import Iterator

import pyarrow as pa
import pytest

from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_HOUR, hour_of, hour_start_ms
from iiot_platform.sinks import influxdb
from iiot_platform.sinks.drain import drain
from iiot_platform.sinks.influxdb import InfluxSink
from tests.reference.memory_outbox import MemoryOutbox
from tests.reference.table_rows import make_rows
from tests.servers import influx
from tests.servers.influx import Influx
from tests.servers.streams import BASE_MS

HOUR = hour_of(BASE_MS)
DRAIN_S = 60.0
MEASURED = tuple(schema.measured())


@pytest.mark.parametrize("table", MEASURED, ids=lambda table: table.name)
@pytest.mark.parametrize("version_3", [False, True], ids=["deletes", "marks"])
def test_a_rewrite_leaves_the_rows_of_its_hour_alone_and_touches_no_other(
    shared: Influx, table: schema.Table, *, version_3: bool
) -> None:
    assert shared.faults is not None
    shared.faults.is_version_3 = version_3
    line = f"it's a\\line, {table.name} {version_3}"
    start_ms = hour_start_ms(HOUR)
    rows = make_rows(table, 12, line=line, start_ms=start_ms - 1_000)
    more = make_rows(table, 1, line=f"{line} 2", start_ms=start_ms + 1_000)
    outbox = MemoryOutbox()
    outbox.add(table.name, HOUR, "upsert", rows)
    outbox.add(table.name, HOUR, "upsert", more)
    outbox.add(table.name, HOUR, "rewrite", rows.slice(4, 5))
    with InfluxSink(shared.settings) as sink:
        assert sink.can_delete is not version_3
        report = drain(outbox, sink, line, deadline_s=DRAIN_S)
    assert (report.points, report.rejected, report.error) == (18, 0, None)
    shown = shared.query(
        f'SELECT "run_id", "line_name" FROM "{table.measurement}"'
        f" WHERE \"{table.mark}\" != '{schema.DELETED}'"
    )
    own = [(row["time"] - start_ms) // 1_000 for row in shown if row["line_name"] == line]
    assert sorted(own) == [-1, 3, 4, 5, 6, 7]
    assert [row["time"] for row in shown if row["line_name"] == f"{line} 2"] == [start_ms + 1_000]


@pytest.mark.parametrize("version_3", [False, True], ids=["deletes", "marks"])
def test_a_field_that_a_rewrite_empties_goes_or_its_old_value_is_told(
    shared: Influx, caplog: pytest.LogCaptureFixture, *, version_3: bool
) -> None:
    assert shared.faults is not None
    shared.faults.is_version_3 = version_3
    table, line, start_ms = schema.VIBRATION_ANOMALIES, f"emptied {version_3}", hour_start_ms(HOUR)
    rows = make_rows(table, 6, line=line, start_ms=start_ms)
    hour = (table, line, start_ms, start_ms + MS_PER_HOUR)
    column = table.arrow.get_field_index("sensor_temperature")
    emptied = [48.0, None, float("nan"), 48.0, 48.0, 48.0]
    fewer = rows.set_column(column, table.arrow.field(column), pa.array(emptied))
    with InfluxSink(shared.settings) as sink:
        sink.write(table, rows)
        sink.rewrite(*hour, rows)
        assert caplog.messages == []
        sink.rewrite(*hour, fewer)
        sink.rewrite(*hour, fewer.slice(0, 1))  # nothing of it is empty
    shown = shared.query(
        f'SELECT "sensor_temperature" FROM "{table.measurement}" WHERE "line_name" = \'{line}\''
    )
    assert len(shown) == (6 if version_3 else 1)
    if version_3:
        (told,) = caplog.messages
        assert f"of line '{line}' from 2026-09-21T14:00:00+00:00 keeps old values of" in told
        assert "sensor_temperature (2 rows); 'iiot sink rebuild'" in told
    else:
        assert caplog.messages == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    influx.require()
    with influx.server(tmp_path_factory.mktemp("influx")) as running:
        if running.faults is None:
            pytest.skip("only a server of the tests' own can say that it is of another version")
        yield running


@pytest.mark.parametrize(("near", "encoding"), [(True, ""), (False, "gzip")])
def test_points_arrive_compressed_where_they_leave_the_machine(
    shared: Influx, monkeypatch: pytest.MonkeyPatch, *, near: bool, encoding: str
) -> None:
    assert shared.faults is not None
    shared.faults.clear()
    monkeypatch.setattr(influxdb, "is_loopback", lambda _: near)
    name = f"sent as {encoding}"
    rows = make_rows(schema.SIGNALS, 50, line=name)
    with InfluxSink(shared.settings) as sink:
        sink.write(schema.SIGNALS, rows)
    assert shared.faults.encodings == [encoding]
    found = shared.query(f'SELECT "value" FROM "GenericSensor" WHERE "line_name" = \'{name}\'')
    assert [row["value"] for row in found] == rows.column("value").to_pylist()
