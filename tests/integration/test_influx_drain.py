import uuid
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
from pydantic import SecretStr

from iiot_platform.core import clock, schema
from iiot_platform.sinks.drain import drain
from iiot_platform.sinks.influxdb import InfluxSink, Written
from tests.reference.memory_outbox import MemoryOutbox
from tests.reference.table_rows import make_rows
from tests.servers import influx
from tests.servers.influx import Influx

HOUR = clock.hour_of(1_795_338_000_000)
START_MS = clock.hour_start_ms(HOUR)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    influx.require()
    with influx.server(tmp_path_factory.mktemp("influx")) as running:
        yield running


@pytest.fixture
def sink(server: Influx) -> Iterator[InfluxSink]:
    if server.faults is not None:
        server.faults.clear()
    with InfluxSink(server.settings, retry_for_s=0.3) as ready:
        yield ready


@pytest.fixture
def line() -> str:
    return f"line {uuid.uuid4().hex}"


def seconds(server: Influx, line: str) -> list[float]:
    """Event times of a line's signals, in seconds after the start of the hour."""
    found = server.query(
        f'SELECT "value" FROM "GenericSensor" WHERE "line_name" = \'{line}\' ORDER BY time'
    )
    return [(row["time"] - START_MS) / 1_000 for row in found]


def signals(line: str, count: int, *, at_s: int = 0) -> pa.Table:
    return make_rows(schema.SIGNALS, count, line=line, start_ms=START_MS + 1_000 * at_s)


def test_a_rewrite_removes_rows_that_vanished_from_its_hour_alone(
    server: Influx, sink: InfluxSink, line: str
) -> None:
    outbox = MemoryOutbox()
    outbox.add("signals", HOUR - 1, "upsert", signals(line, 1, at_s=-1))
    outbox.add("signals", HOUR, "upsert", signals(line, 10))
    outbox.add("signals", HOUR + 1, "upsert", signals(line, 1, at_s=3_600))
    drain(outbox, sink, line, deadline_s=10)
    assert seconds(server, line) == [-1, *range(10), 3_600]
    outbox.add("signals", HOUR, "rewrite", signals(line, 3, at_s=5))
    report = drain(outbox, sink, line, deadline_s=10)
    assert (report.points, report.error) == (3, None)
    assert seconds(server, line) == [-1, 5, 6, 7, 3_600]


def test_a_server_that_is_away_keeps_the_backlog_and_gets_it_in_order(
    server: Influx, sink: InfluxSink, line: str
) -> None:
    if server.process is None or server.faults is None:
        pytest.skip("only a server that the tests own can be killed")
    outbox = MemoryOutbox()
    outbox.add("signals", HOUR, "upsert", signals(line, 10))
    outbox.add("signals", HOUR, "rewrite", signals(line, 5))
    outbox.add("signals", HOUR, "upsert", signals(line, 2, at_s=20))
    server.process.kill()
    report = drain(outbox, sink, line, deadline_s=10)
    assert (report.points, report.entries, report.remaining) == (0, 0, 3)
    assert report.error is not None
    assert "does not answer" in report.error
    waiting = drain(outbox, sink, line, deadline_s=10)
    assert "left alone" in str(waiting.error)

    server.process.start()
    server.faults.seen.clear()
    retry_at = outbox.retry_at(line)
    assert retry_at is not None
    report = drain(outbox, sink, line, deadline_s=10, now_ms=lambda: retry_at)
    assert (report.points, report.entries, report.remaining, report.error) == (17, 3, 0, None)
    paths = [path for path in server.faults.paths() if path != "/ping"]
    assert paths == ["/api/v2/write", "/query", "/api/v2/write", "/api/v2/write"]
    assert seconds(server, line) == [0, 1, 2, 3, 4, 20, 21]


def test_a_wrong_token_keeps_the_backlog(server: Influx, line: str) -> None:
    outbox = MemoryOutbox()
    outbox.add("signals", HOUR, "upsert", signals(line, 2))
    with InfluxSink(replace(server.settings, token=SecretStr("wrong"))) as sink:
        report = drain(outbox, sink, line, deadline_s=10)
    assert "INFLUX_TOKEN" in str(report.error)
    assert (report.remaining, outbox.rejected, outbox.failure_count) == (1, {}, 1)


def test_what_the_server_refuses_is_set_aside_with_table_and_row(
    sink: InfluxSink, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = replace(schema.SIGNALS, measurement=f"Conflict{uuid.uuid4().hex}")
    whole = replace(
        table,
        columns=tuple(
            replace(c, type=schema.INT) if c.name == "value" else c for c in table.columns
        ),
    )
    sink.write(whole, make_rows(whole, 1, line="first"))
    monkeypatch.setitem(schema.TABLES, "signals", table)
    outbox = MemoryOutbox()
    poisoned = outbox.add("signals", HOUR, "upsert", signals(line, 2))
    good = outbox.add("valve_anomalies", HOUR, "upsert", make_rows(schema.VALVE_ANOMALIES, 4))
    report = drain(outbox, sink, line, deadline_s=10)
    assert (report.entries, report.rejected, report.remaining, report.error) == (1, 1, 0, None)
    assert list(outbox.rejected) == [poisoned]
    assert outbox.journal == [f"done {good}"]
    message = outbox.rejected[poisoned]
    assert "table 'signals'" in message
    assert "type conflict" in message
    assert "first is row 0" in message


def test_a_process_killed_between_delete_and_write_is_repaired_by_the_next(
    server: Influx, sink: InfluxSink, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Ends the drain as a kill would: nothing of it runs any more."""

    def killed(*_: object) -> Written:
        raise Killed

    outbox = MemoryOutbox()
    outbox.add("signals", HOUR, "upsert", signals(line, 10))
    drain(outbox, sink, line, deadline_s=10)
    outbox.add("signals", HOUR, "rewrite", signals(line, 4, at_s=3))
    with InfluxSink(server.settings) as dying:
        monkeypatch.setattr(dying, "write", killed)
        with pytest.raises(Killed):
            drain(outbox, dying, line, deadline_s=10)
    assert seconds(server, line) == []
    assert len(outbox.pending(line, 10)) == 1
    drain(outbox, sink, line, deadline_s=10)
    assert seconds(server, line) == [3, 4, 5, 6]
    assert outbox.journal == ["done 0", "begin 1", "begin 1", "done 1"]
