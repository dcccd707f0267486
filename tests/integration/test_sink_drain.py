"""What holds for every database behind the tables, drained from an outbox in memory."""

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
from pydantic import SecretStr

from iiot_platform.config.settings import InfluxSettings, PostgresSettings
from iiot_platform.core import clock, schema
from iiot_platform.sinks.drain import drain
from iiot_platform.sinks.opening import open_sink
from iiot_platform.sinks.sink import OpenSink
from tests.reference.memory_outbox import MemoryOutbox
from tests.reference.table_rows import make_rows
from tests.servers import databases
from tests.servers.databases import Database

HOUR = clock.hour_of(1_795_338_000_000)
START_MS = clock.hour_start_ms(HOUR)
MEASURED = (*schema.measured(), schema.EVENTS)


@pytest.fixture(scope="module", params=databases.NAMES)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    with databases.running(request.param, tmp_path_factory.mktemp("database")) as running:
        yield running


@pytest.fixture
def database(shared: Database) -> Database:
    """The one of all tests here; it runs, also where a test before has failed in between."""
    shared.ensure()
    return shared


@pytest.fixture
def sink(database: Database) -> Iterator[OpenSink]:
    with databases.open_hasty(database) as ready:
        yield ready


@pytest.fixture
def line() -> str:
    return f"it's a\\line {uuid.uuid4().hex}"


def seconds(database: Database, line: str, table: schema.Table = schema.SIGNALS) -> list[float]:
    """Event times of a line's rows, in seconds after the start of the hour."""
    rows = database.shown(table)
    return sorted((row["ts"] - START_MS) / 1_000 for row in rows if row["line_name"] == line)


def signals(line: str, count: int, *, at_s: int = 0, seed: int = 0) -> pa.Table:
    start_ms = START_MS + 1_000 * at_s
    return make_rows(schema.SIGNALS, count, line=line, start_ms=start_ms, seed=seed)


@pytest.mark.parametrize("table", MEASURED, ids=lambda table: table.name)
def test_rows_read_back_one_by_one_and_later_ones_replace_them(
    database: Database, sink: OpenSink, line: str, table: schema.Table
) -> None:
    names = table.names("time", "tag", "field", "provenance")
    for seed in (1, 2):
        rows = make_rows(table, 40, line=line, start_ms=START_MS, seed=seed)
        assert sink.write(table, rows) == (40, 0)
    found = [row for row in database.shown(table) if row["line_name"] == line]
    want = rows.set_column(0, "ts", rows.column("ts").cast(pa.int64())).to_pylist()
    assert sorted([{n: row[n] for n in names} for row in found], key=lambda row: row["ts"]) == want


def test_a_missing_tag_and_an_empty_one_are_the_same(
    database: Database, sink: OpenSink, line: str
) -> None:
    for name in (None, ""):
        rows = make_rows(
            schema.SIGNALS, 1, line=line, start_ms=START_MS, machine_name=[name], value=[len(line)]
        )
        sink.write(schema.SIGNALS, rows)
    (row,) = [row for row in database.shown(schema.SIGNALS) if row["line_name"] == line]
    assert not row.get("machine_name")  # InfluxDB does not show a tag that no row has


def test_the_last_of_two_rows_of_one_key_stands(
    database: Database, sink: OpenSink, line: str
) -> None:
    rows = pa.concat_tables([signals(line, 3), signals(line, 3, seed=7)])
    sink.write(schema.SIGNALS, rows)
    found = [row for row in database.shown(schema.SIGNALS) if row["line_name"] == line]
    values = [row["value"] for row in sorted(found, key=lambda row: row["ts"])]
    assert values == rows.column("value").to_pylist()[3:]


@pytest.mark.parametrize("table", MEASURED, ids=lambda table: table.name)
def test_a_rewrite_leaves_the_rows_of_its_hour_alone_and_touches_no_other(
    database: Database, sink: OpenSink, line: str, table: schema.Table
) -> None:
    end_ms = START_MS + clock.MS_PER_HOUR
    rows = make_rows(table, 12, line=line, start_ms=START_MS - 1_000)
    sink.write(table, rows)
    sink.write(table, make_rows(table, 1, line=line, start_ms=end_ms))
    sink.write(table, make_rows(table, 1, line=f"{line} 2", start_ms=START_MS + 1_000))
    sink.rewrite(table, line, START_MS, end_ms, rows.slice(4, 5))
    assert seconds(database, line, table) == [-1, 3, 4, 5, 6, 7, 3_600]
    assert seconds(database, f"{line} 2", table) == [1]
    sink.rewrite(table, line, START_MS, end_ms, rows.slice(0, 0))
    assert seconds(database, line, table) == [-1, 3_600]


def test_a_table_that_was_never_written_can_be_rewritten_empty(sink: OpenSink, line: str) -> None:
    rows = make_rows(schema.STATES, 0)
    assert sink.rewrite(schema.STATES, line, START_MS, START_MS + 1, rows) == (0, 0)


def test_a_server_that_is_away_keeps_the_backlog_and_gets_it_in_order(
    database: Database, sink: OpenSink, line: str
) -> None:
    outbox = MemoryOutbox()
    outbox.add("signals", HOUR, "upsert", signals(line, 10))
    outbox.add("signals", HOUR, "rewrite", signals(line, 5))
    outbox.add("signals", HOUR, "upsert", signals(line, 2, at_s=20))
    database.kill()
    report = drain(outbox, sink, line, deadline_s=10)
    assert (report.points, report.entries, report.remaining) == (0, 0, 3)
    assert "does not answer" in str(report.error)
    waiting = drain(outbox, sink, line, deadline_s=10)
    assert "left alone" in str(waiting.error)

    database.start()
    retry_at = outbox.retry_at(line)
    assert retry_at is not None
    report = drain(outbox, sink, line, deadline_s=10, now_ms=lambda: retry_at)
    assert (report.points, report.entries, report.remaining, report.error) == (17, 3, 0, None)
    assert seconds(database, line) == [0, 1, 2, 3, 4, 20, 21]


def test_a_server_that_was_away_between_two_writes_of_one_sink_is_met_again(
    database: Database, sink: OpenSink, line: str
) -> None:
    outbox = MemoryOutbox()
    outbox.add("signals", HOUR, "upsert", signals(line, 2))
    assert drain(outbox, sink, line, deadline_s=10).error is None
    database.kill()
    database.start()
    for at_s in (10, 20):  # a kept connection may have to be given up first
        outbox.add("signals", HOUR, "upsert", signals(line, 2, at_s=at_s))
        outbox.retry_at_ms = None
        drain(outbox, sink, line, deadline_s=10)
    assert seconds(database, line) == [0, 1, 10, 11, 20, 21]


def test_a_wrong_log_in_keeps_the_backlog_and_is_not_shown(database: Database, line: str) -> None:
    outbox = MemoryOutbox()
    outbox.add("signals", HOUR, "upsert", signals(line, 2))
    with open_sink(wrong(database)) as sink:
        report = drain(outbox, sink, line, deadline_s=10)
    assert report.error is not None
    assert "token" in report.error or "password authentication failed" in report.error
    assert "hunter2" not in report.error
    assert (report.remaining, outbox.rejected, outbox.failure_count) == (1, {}, 1)


def wrong(database: Database) -> InfluxSettings | PostgresSettings:
    settings = database.settings
    if isinstance(settings, InfluxSettings):
        return replace(settings, token=SecretStr("hunter2"))
    return replace(
        settings, url=SecretStr(settings.url.get_secret_value().replace("geheim", "hunter2"))
    )


def test_what_the_server_refuses_is_set_aside_and_the_rest_goes_on(
    database: Database, sink: OpenSink, line: str
) -> None:
    sink.write(schema.SIGNALS, signals("other", 1))
    database.poison(schema.SIGNALS, "value", START_MS)
    outbox = MemoryOutbox()
    poisoned = outbox.add("signals", HOUR, "upsert", signals(line, 2))
    good = outbox.add("valve_anomalies", HOUR, "upsert", make_rows(schema.VALVE_ANOMALIES, 4))
    with databases.open_hasty(database) as other:
        report = drain(outbox, other, line, deadline_s=10)
    database.drop(schema.SIGNALS)
    assert (report.entries, report.rejected, report.remaining, report.error) == (1, 1, 0, None)
    assert list(outbox.rejected) == [poisoned]
    assert outbox.journal == [f"done {good}"]
    assert "signals" in outbox.rejected[poisoned]
    assert "value" in outbox.rejected[poisoned]


def test_a_process_killed_within_a_rewrite_is_repaired_by_the_next(
    database: Database, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = MemoryOutbox()
    outbox.add("signals", HOUR, "upsert", signals(line, 10))
    with databases.open_hasty(database) as sink:
        drain(outbox, sink, line, deadline_s=10)
    outbox.add("signals", HOUR, "rewrite", signals(line, 4, at_s=3))
    with monkeypatch.context() as patched, databases.open_hasty(database) as dying:
        database.die_in_rewrite(patched)
        assert drain(outbox, dying, line, deadline_s=10).remaining == 1
    database.start()
    assert seconds(database, line) == (list(range(10)) if database.is_atomic else [])
    outbox.retry_at_ms = None
    with databases.open_hasty(database) as sink:
        drain(outbox, sink, line, deadline_s=10)
    assert seconds(database, line) == [3, 4, 5, 6]
    assert [call for call in outbox.journal if "failed" not in call] == [
        "done 0",
        "begin 1",
        "begin 1",
        "done 1",
    ]


def test_what_is_marked_as_deleted_is_shown_no_longer(
    database: Database, sink: OpenSink, line: str
) -> None:
    kinds = {"kind": ["rerun", "gap", "rerun"]}
    sink.write(schema.EVENTS, make_rows(schema.EVENTS, 3, line=line, start_ms=START_MS, **kinds))
    marks = {"run_id": ["run", schema.DELETED, "run"], **kinds}
    sink.write(schema.EVENTS, make_rows(schema.EVENTS, 3, line=line, start_ms=START_MS, **marks))
    assert seconds(database, line, schema.EVENTS) == [0, 2]
