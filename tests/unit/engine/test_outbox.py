"""The outbox with a drain and a database in memory: in the end the database equals the tables."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from iiot_platform.config.line_settings import KindDefaults
from iiot_platform.core import schema
from iiot_platform.core.clock import hour_of, hour_start_ms
from iiot_platform.core.errors import SinkError
from iiot_platform.core.parameters import DetectorParameters
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.garbage import collect
from iiot_platform.engine.outbox import LedgerOutbox, sinks_of
from iiot_platform.sinks.drain import DrainReport, drain
from iiot_platform.sinks.refusals import RefusedError
from iiot_platform.sinks.sink import Written
from tests.servers.capture_log import write_segments
from tests.servers.engines import LINE, PLANT, engine_at, rows_of, settle
from tests.servers.engines import drain as take_all
from tests.servers.streams import BASE_MS, disturb, line_records, signal

Rows = dict[tuple[object, ...], dict[str, object]]
HOUR = hour_of(BASE_MS)
NOW_MS = 5_000_000


class MemorySink:
    """A database that keeps the last row of each time and tags; fails or refuses when told to."""

    request_rows = 5_000

    def __init__(self) -> None:
        self.tables: dict[str, Rows] = {}
        self.writes = 0
        self.before: Callable[[str, pa.Table], None] = lambda _table, _rows: None

    def write(self, table: schema.Table, rows: pa.Table) -> Written:
        self.before(table.name, rows)
        self.writes += len(rows)
        self.tables.setdefault(table.name, {}).update(keyed(table, rows))
        return Written(len(rows), 0)

    def rewrite(
        self, table: schema.Table, line: str, start_ms: int, end_ms: int, rows: pa.Table
    ) -> Written:
        kept = {
            key: row
            for key, row in self.tables.get(table.name, {}).items()
            if not (row["line_name"] == line and start_ms <= row["ms"] < end_ms)  # type: ignore[operator]
        }
        self.tables[table.name] = kept
        return self.write(table, rows)


def keyed(table: schema.Table, rows: pa.Table) -> Rows:
    """Rows by time and tags, provenance left out."""
    ms = rows.column("ts").cast(pa.int64()).to_pylist()
    plain = rows.drop_columns(["ts", *table.names("provenance")]).to_pylist()
    tags = table.names("tag")
    return {
        (at, *(row[tag] for tag in tags)): row | {"ms": at}
        for at, row in zip(ms, plain, strict=True)
    }


def standing(engine: Engine) -> dict[str, Rows]:
    """What the tables say."""
    found: dict[str, Rows] = {}
    for table in schema.measured():
        for hour in engine.ledger.hours(LINE):
            if rows := keyed(table, rows_of(engine, table, hour)):
                found.setdefault(table.name, {}).update(rows)
    return found


def outbox_of(engine: Engine, sink: str = "influxdb") -> LedgerOutbox:
    return LedgerOutbox(engine.ledger, engine.store, sink)


def run(
    engine: Engine, sink: MemorySink, *, deadline_s: float = 60.0, now: int = NOW_MS
) -> DrainReport:
    return drain(outbox_of(engine), sink, LINE, deadline_s=deadline_s, now_ms=lambda: now)


def same(sink: MemorySink, engine: Engine) -> bool:
    return {name: rows for name, rows in sink.tables.items() if rows} == standing(engine)


@pytest.mark.parametrize("every", [1, 3, 1_000])
def test_a_database_that_follows_ends_with_what_the_tables_say(home: Home, every: int) -> None:
    """Disorder, restarts, reruns and merged files included, drained often or only at the end."""
    engine = engine_at(home.root, disturb(line_records(4, 200), 4), sinks=("influxdb",))
    sink = MemorySink()
    batches = 0
    while engine.run_batch(LINE, run_id="run", row_cap=10):
        batches += 1
        if batches % every == 0:
            assert run(engine, sink).error is None
    settle(engine)
    report = run(engine, sink)
    assert (report.error, report.remaining, report.rejected) == (None, 0, 0)
    assert same(sink, engine)
    assert outbox_of(engine).backlog(LINE) == 0


def test_what_was_merged_or_replaced_is_sent_once(home: Home) -> None:
    records = [signal("t", BASE_MS + i * 11_000, float(i % 3)) for i in range(200)]
    engine = engine_at(home.root, records, sinks=("influxdb",))
    take_all(engine, [10])
    sink = MemorySink()
    run(engine, sink)
    assert same(sink, engine)
    assert sink.writes == sum(len(rows) for rows in sink.tables.values())


def test_garbage_and_a_time_without_a_sink_hide_no_rows(home: Home) -> None:
    records = [signal("t", BASE_MS + i * 1_000, float(i % 3)) for i in range(160)]
    engine = engine_at(home.root, records, sinks=("influxdb",))
    take_all_but = Engine(home, PLANT, sinks=())
    engine.run_batch(LINE, run_id="told", row_cap=10)
    take_all(take_all_but, [10])  # merges the first file, and tells nobody
    collect(engine.ledger, engine.store, grace_s=-1, keep_versions=1)
    sink = MemorySink()
    run(engine, sink)
    assert sink.tables["signals"] == standing(engine)["signals"]


def test_what_another_sink_is_told_later_hides_no_rows(home: Home) -> None:
    records = [signal("t", BASE_MS + i * 1_000, float(i % 3)) for i in range(160)]
    engine = engine_at(home.root, records, sinks=("influxdb", "postgresql"))
    engine.run_batch(LINE, run_id="both", row_cap=10)
    take_all(Engine(home, PLANT, sinks=("postgresql",)), [10])  # merges the first file
    sink = MemorySink()
    run(engine, sink)
    assert sink.tables["signals"] == standing(engine)["signals"]


def test_a_rewrite_that_was_interrupted_is_done_again(home: Home) -> None:
    engine = engine_at(home.root, line_records(2, 60), sinks=("influxdb",))
    take_all(engine, [10_000])
    sink = MemorySink()
    run(engine, sink)
    other = PLANT.model_copy(
        update={"defaults": KindDefaults(signal=DetectorParameters(window=20, threshold=1.0))}
    )
    Engine(home, other, sinks=("influxdb",)).rerun(LINE, HOUR, run_id="rerun", settings="current")

    def fail(_table: str, _rows: pa.Table) -> None:
        raise KeyboardInterrupt

    sink.before = fail
    with pytest.raises(KeyboardInterrupt):  # dies between delete and write
        run(engine, sink)
    assert not same(sink, engine)
    sink.before = lambda _table, _rows: None
    again = Engine(home, PLANT, sinks=("influxdb",))
    assert run(again, sink).remaining == 0
    assert same(sink, again)


def test_an_entry_that_is_refused_is_set_aside_and_the_rest_goes_on(home: Home) -> None:
    engine = engine_at(home.root, line_records(2, 60), sinks=("influxdb",))
    take_all(engine, [10_000])
    sink = MemorySink()

    def refuse(table: str, _rows: pa.Table) -> None:
        if table == "states":
            raise RefusedError("field type conflict")

    outbox_of(engine).failed(LINE, "away", NOW_MS)
    sink.before = refuse
    report = run(engine, sink)
    outbox = outbox_of(engine)
    assert (report.rejected, report.remaining, report.error) == (
        len(outbox.rejected(LINE)),
        0,
        None,
    )
    entry, words = outbox.rejected(LINE)[0]
    assert entry.table == "states"
    assert "field type conflict" in words
    assert set(sink.tables) == {name for name in standing(engine) if name != "states"}
    sink.before = lambda _table, _rows: None
    hours = engine.ledger.hours(LINE)
    again = outbox.rebuild(LINE, hours)
    assert len(again) == len(hours) * len(list(schema.measured()))
    assert outbox.rejected(LINE) == []
    assert set(outbox.of(again).values()) == {None}
    run(engine, sink)
    assert same(sink, engine)
    assert outbox.of(again) == {}


def test_a_rebuild_stands_for_what_was_pending_of_its_tables_alone(home: Home) -> None:
    engine = engine_at(home.root, line_records(2, 60), sinks=("influxdb",))
    take_all(engine, [10_000])
    outbox = outbox_of(engine)
    before = outbox.pending(LINE, 1_000)
    (one,) = outbox.rebuild(LINE, [HOUR], ["states"])
    rest = [e.id for e in before if (e.table, e.hour) != ("states", HOUR)]
    assert [entry.id for entry in outbox.pending(LINE, 1_000)] == [*rest, one]
    assert len(rest) < len(before)
    count = len(rest) + 1
    assert (outbox.is_longer(LINE, count - 1), outbox.is_longer(LINE, count)) == (True, False)


def test_a_refusal_ends_the_failures_before_it(home: Home) -> None:
    engine = engine_at(home.root, line_records(2, 20), sinks=("influxdb",))
    take_all(engine, [10_000])
    outbox = outbox_of(engine)
    outbox.failed(LINE, "away", NOW_MS)
    outbox.reject(outbox.pending(LINE, 1)[0], "refused")
    assert outbox.failures(LINE) == 0
    assert outbox.retry_at(LINE) is None


def test_a_database_that_is_away_is_left_alone_ever_longer(home: Home) -> None:
    engine = engine_at(home.root, line_records(2, 20), sinks=("influxdb",))
    take_all(engine, [10_000])
    sink = MemorySink()
    outbox = outbox_of(engine)
    pending = outbox.backlog(LINE)

    def away(_table: str, _rows: pa.Table) -> None:
        raise SinkError("no route to host")

    sink.before = away
    now, waits = NOW_MS, []
    for _ in range(4):
        report = run(engine, sink, now=now)
        assert report.error == outbox.last_error(LINE) == "no route to host"
        retry_at = outbox.retry_at(LINE)
        assert retry_at is not None
        assert "left alone" in str(run(engine, sink, now=retry_at - 1).error)
        waits.append(retry_at - now)
        now = retry_at
    assert waits == [1_000, 2_000, 4_000, 8_000]
    assert outbox.backlog(LINE) == pending
    sink.before = lambda _table, _rows: None
    assert run(engine, sink, now=now).remaining == 0
    assert outbox.failures(LINE) == 0
    assert same(sink, engine)


def test_a_row_that_a_restart_takes_away_goes_from_the_database(home: Home) -> None:
    times: list[Any] = [BASE_MS, BASE_MS + 2_000]
    engine = engine_at(home.root, [signal("t", ts, 1.0) for ts in times], sinks=("influxdb",))
    take_all(engine, [10])
    sink = MemorySink()
    run(engine, sink)
    write_segments(home, LINE, [signal("t", BASE_MS + 1_000, 5.0)])
    take_all(engine, [10])
    assert outbox_of(engine).pending(LINE, 1)[0].operation == "rewrite"
    stray = hour_start_ms(HOUR) + 5
    sink.tables["signals"][stray,] = {"line_name": LINE, "ms": stray}
    run(engine, sink)
    assert same(sink, engine)


def test_each_sink_has_a_backlog_failures_and_refusals_of_its_own(home: Home) -> None:
    engine = engine_at(home.root, line_records(2, 60), sinks=("influxdb", "postgresql"))
    take_all(engine, [10_000])
    influx, postgres = (outbox_of(engine, sink) for sink in ("influxdb", "postgresql"))
    backlog = postgres.backlog(LINE)
    assert influx.backlog(LINE) == backlog > 1
    run(engine, MemorySink())
    assert (influx.backlog(LINE), postgres.backlog(LINE)) == (0, backlog)
    influx.failed(LINE, "away", NOW_MS)
    postgres.reject(postgres.pending(LINE, 1)[0], "refused")
    assert (influx.failures(LINE), postgres.failures(LINE)) == (1, 0)
    assert (influx.rejected(LINE), len(postgres.rejected(LINE))) == ([], 1)
    influx.rebuild(LINE, [HOUR], ["states"])
    assert len(postgres.rejected(LINE)) == 1
    assert postgres.backlog(LINE) == backlog - 1


def test_a_sink_that_follows_misses_nothing_and_takes_nothing_up(home: Home) -> None:
    engine = engine_at(home.root, line_records(4, 120), sinks=("influxdb",))
    outbox = outbox_of(engine)
    while engine.run_batch(LINE, run_id="run", row_cap=20):
        assert outbox.missing(LINE) == []
    settle(engine)
    before = outbox.pending(LINE, 1_000)
    assert outbox.take_up(LINE) == 0
    assert outbox.pending(LINE, 1_000) == before


def test_a_sink_that_is_new_or_was_away_from_the_settings_takes_up_what_changed(
    home: Home,
) -> None:
    hours = [HOUR, HOUR + 1, HOUR + 2]
    records = [signal("t", hour_start_ms(hour) + i, 1.0) for hour in hours for i in range(30)]
    both = ("influxdb", "postgresql")
    engine = engine_at(home.root, records, sinks=("influxdb",), rows=30)
    engine.run_batch(LINE, run_id="without", row_cap=30)
    later = Engine(home, PLANT, sinks=both)
    later.run_batch(LINE, run_id="first with both", row_cap=30)
    new, sink = outbox_of(later, "postgresql"), MemorySink()
    assert new.missing(LINE) == [HOUR + 1, HOUR]
    assert new.take_up(LINE) == 2
    assert [entry.hour for entry in new.pending(LINE, 1)] == [HOUR + 1], "the newest first"
    assert new.missing(LINE) == []
    drain(new, sink, LINE, deadline_s=60)
    assert same(sink, later)

    engine.run_batch(LINE, run_id="by one that does not know of it", row_cap=30)
    later.rerun(LINE, HOUR, run_id="with both again")
    assert outbox_of(engine).missing(LINE) == []
    assert new.missing(LINE) == [HOUR + 2, HOUR]
    new.take_up(LINE)
    drain(new, sink, LINE, deadline_s=60)
    assert same(sink, later)


def test_what_is_left_of_a_sink_is_known_and_can_be_forgotten(home: Home) -> None:
    engine = engine_at(home.root, line_records(2, 60), sinks=("influxdb", "postgresql"))
    take_all(engine, [10_000])
    gone, kept = (outbox_of(engine, sink) for sink in ("postgresql", "influxdb"))
    gone.failed(LINE, "away", NOW_MS)
    backlog = gone.backlog(LINE)
    assert sinks_of(engine.ledger) == ["influxdb", "postgresql"]
    assert gone.lines() == [LINE]
    assert gone.forget(LINE) == backlog
    assert sinks_of(engine.ledger) == ["influxdb"]
    assert (gone.lines(), gone.failures(LINE)) == ([], 0)
    assert kept.backlog(LINE) == backlog
    assert gone.missing(LINE) == list(reversed(engine.ledger.hours(LINE))), "all, should it return"
