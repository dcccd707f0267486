"""The database behind the tables: away for long, killed, filled anew, unable to delete."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from iiot_platform.cli.app import main
from iiot_platform.config.plant_file import load_plant
from iiot_platform.core import clock, schema
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import hour_of, hour_start_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.outbox import LedgerOutbox
from iiot_platform.orchestration.delivery import InfluxDelivery, influx_delivery
from iiot_platform.sinks import influxdb
from iiot_platform.sinks.drain import DrainReport, drain
from iiot_platform.sinks.influxdb import InfluxSink
from tests.reference.influx_rows import compared
from tests.reference.memory_outbox import MemoryOutbox
from tests.reference.table_rows import make_rows
from tests.servers import influx
from tests.servers.capture_log import write_segments
from tests.servers.influx import Faults, Influx, InfluxProcess
from tests.servers.streams import BASE_MS, HOUR_MS, line_records

LINE = "line1"
HOUR = hour_of(BASE_MS)
DRAIN_S = 60.0
MEASURED = tuple(schema.measured())


@dataclass
class Site:
    """A line on disk and a database of the tests' own behind it."""

    folder: Path
    server: Influx
    faults: Faults
    process: InfluxProcess

    @property
    def home(self) -> Home:
        return Home(self.folder / "home")

    @property
    def environ(self) -> dict[str, str]:
        return {
            "IIOT_HOME": str(self.home.root),
            "IIOT_PLANT": str(self.folder / "plant.yaml"),
            "INFLUX_URL": self.server.url,
            "INFLUX_TOKEN": self.server.token,
        }

    def plant(self, max_lateness_s: int = 86_400) -> None:
        (self.folder / "plant.yaml").write_text(
            f"lines: [{LINE}]\nmax_lateness_s: {max_lateness_s}\n"
            "defaults: {signal: {window: 20, rate_window: 10, refractory: 0}}\n",
            encoding="utf-8",
        )

    @contextlib.contextmanager
    def engine(self) -> Iterator[Engine]:
        plant = load_plant(self.folder / "plant.yaml", self.environ)
        with contextlib.closing(Engine(self.home, plant, sinks=True)) as engine:
            yield engine

    def call(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
        """What a command answers in JSON, and its exit code."""
        with pytest.raises(SystemExit) as ended:
            main((*arguments, "--json"), self.environ)
        said = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(said.out) if said.out else said.err

    def delivery(self, engine: Engine) -> InfluxDelivery:
        found = influx_delivery(self.server.settings)(engine)
        assert isinstance(found, InfluxDelivery)
        return found

    def deliver(self, engine: Engine) -> DrainReport:
        report = self.delivery(engine).drain(LINE, DRAIN_S)
        assert (report.remaining, report.rejected, report.error) == (0, 0, None)
        return report


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    influx.require()
    (tmp_path / "influx").mkdir()
    with influx.server(tmp_path / "influx") as server:
        if server.faults is None or server.process is None:
            pytest.skip("only a server that the tests own can be killed and changed")
        found = Site(tmp_path, server, server.faults, server.process)
        found.plant()
        yield found


def late_in_one_hour(messages: int) -> list[Record]:
    """All kinds of a line over three hours; half of the second hour arrives two hours late."""
    records = []
    for i, record in enumerate(line_records(3, messages, spread_ms=3 * HOUR_MS)):
        ts = record.received_ts // 1_000
        late = hour_of(ts) == HOUR + 1 and i % 2
        records.append(
            record._replace(received_ts=record.received_ts + 2 * HOUR_MS * 1_000 * bool(late))
        )
    return sorted(records, key=lambda record: record.received_ts)


def test_a_server_that_was_away_for_long_gets_everything_in_full_requests(site: Site) -> None:
    write_segments(site.home, LINE, line_records(1, 300), rows=10)
    site.process.kill()
    with site.engine() as engine:
        delivery, outbox = site.delivery(engine), LedgerOutbox(engine.ledger, engine.store)
        engine.run_batch(LINE, run_id="live", row_cap=10)
        assert delivery.drain(LINE, 0.0).error is not None
        while engine.run_batch(LINE, run_id="live", row_cap=10):
            pass  # the batches go on
        waiting = outbox.backlog(LINE)
        assert waiting > 100
        outbox.failed(LINE, "not reachable", clock.now_ms() + 60_000)
        assert not delivery.behind(LINE), "its back-off is not over"
        site.process.start()
        outbox.failed(LINE, "the time is over", clock.now_ms() - 1)
        assert delivery.behind(LINE)
        site.faults.seen.clear()
        report = site.deliver(engine)
        assert report.entries == waiting
        assert len(site.faults.seen) < waiting / 5
        compared(site.server, engine, LINE)


def test_a_server_killed_between_delete_and_write_gets_the_hour_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segments(site.home, LINE, line_records(1, 200), rows=100)
    with site.engine() as engine:
        while engine.run_batch(LINE, run_id="live", row_cap=1_000):
            pass
        site.deliver(engine)
        outbox = LedgerOutbox(engine.ledger, engine.store)
        outbox.rebuild(LINE, [HOUR], ["signals"])
        delete = InfluxSink.delete_range

        def last_act(*arguments: Any) -> None:
            delete(*arguments)
            site.process.kill()

        with monkeypatch.context() as patched:
            patched.setattr(InfluxSink, "delete_range", last_act)
            report = site.delivery(engine).drain(LINE, DRAIN_S)
        assert "does not answer" in str(report.error)
        assert report.remaining == 1
        site.process.start()
        with pytest.raises(AssertionError):
            compared(site.server, engine, LINE)
        outbox.failed(LINE, "the time is over", clock.now_ms() - 1)
        site.deliver(engine)
        compared(site.server, engine, LINE)


@pytest.mark.parametrize("version_3", [False, True], ids=["deletes", "marks"])
def test_rows_of_every_table_vanish_with_their_readings(
    site: Site, capsys: pytest.CaptureFixture[str], *, version_3: bool
) -> None:
    site.faults.is_version_3 = version_3
    write_segments(site.home, LINE, late_in_one_hour(900), rows=200)
    for command in (("batch",), ("rerun", "--all", "--from", "2020-01-01")):
        assert site.call(capsys, *command)[0] == 0
    with site.engine() as engine:
        site.deliver(engine)
        before = compared(site.server, engine, LINE)
    site.plant(max_lateness_s=3_600)  # what was two hours late is no longer taken
    assert site.call(capsys, "rerun", "--all", "--outdated")[0] == 0
    with site.engine() as engine:
        site.deliver(engine)
        after = compared(site.server, engine, LINE)
        found = {name for name, rows in before.items() if rows.keys() - after[name].keys()}
        assert found >= {table.name for table in MEASURED if table.kind is not None}
        site.plant()  # and are taken again: what was marked stands again
    assert site.call(capsys, "rerun", "--all", "--outdated")[0] == 0
    with site.engine() as engine:
        site.deliver(engine)
        assert {k: v.keys() for k, v in compared(site.server, engine, LINE).items()} == {
            k: v.keys() for k, v in before.items()
        }


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
    hour = (table, line, start_ms, start_ms + HOUR_MS)
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


def test_compressed_points_arrive(shared: Influx, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared.faults is not None
    shared.faults.clear()
    monkeypatch.setattr(influxdb, "is_loopback", lambda _: False)
    rows = make_rows(schema.SIGNALS, 50, line="compressed")
    with InfluxSink(shared.settings) as sink:
        sink.write(schema.SIGNALS, rows)
    found = shared.query('SELECT "value" FROM "GenericSensor" WHERE "line_name" = \'compressed\'')
    assert [row["value"] for row in found] == rows.column("value").to_pylist()


def test_a_database_is_filled_anew_from_the_tables(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write_segments(site.home, LINE, line_records(1, 300), rows=100)
    assert site.call(capsys, "batch")[0] == 0
    code, standing = site.call(capsys, "sink", "status")
    assert code == 0
    assert standing["server"]["can_delete"]
    assert standing["lines"][0]["pending"] > 0
    with site.engine() as engine:
        site.deliver(engine)
    with InfluxSink(site.server.settings) as sink:  # rows go, and others come
        sink.delete_range(schema.SIGNALS, LINE, BASE_MS, BASE_MS + HOUR_MS)
        sink.write(schema.STATES, make_rows(schema.STATES, 5, line=LINE, start_ms=BASE_MS + 7))

    span = ("--from", f"{clock.from_ms(BASE_MS):%Y-%m-%dT%H:%MZ}")
    code, done = site.call(capsys, "sink", "rebuild", "--table", "signals", *span)
    assert (code, done["lines"][0]["rejected"]) == (0, [])
    with site.engine() as engine, pytest.raises(AssertionError, match="states"):
        compared(site.server, engine, LINE)
    code, done = site.call(capsys, "sink", "rebuild")
    (line,) = done["lines"]
    assert (code, line["hours"]) == (0, 2)
    with site.engine() as engine:
        tables = compared(site.server, engine, LINE)
        assert line["points"] == sum(map(len, tables.values()))
    assert site.call(capsys, "sink", "status")[1]["lines"][0]["pending"] == 0


def test_what_is_refused_is_told_and_can_be_tried_again(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write_segments(site.home, LINE, line_records(1, 300), rows=100)
    assert site.call(capsys, "batch")[0] == 0
    server, states = site.server, schema.STATES.measurement
    with InfluxSink(server.settings) as sink:
        columns = tuple(
            replace(c, type=schema.FLOAT) if c.name == "value" else c for c in schema.STATES.columns
        )
        poison = replace(schema.STATES, columns=columns)
        sink.write(poison, make_rows(poison, 1, line="other", start_ms=BASE_MS))
    with site.engine() as engine:
        report = site.delivery(engine).drain(LINE, DRAIN_S)
        assert report.rejected > 0
    code, found = site.call(capsys, "sink", "rejected")
    assert code == 0
    assert {one["table"] for one in found} == {"states"}
    assert all("type conflict" in one["reason"] and "row 0" in one["reason"] for one in found)
    code, done = site.call(capsys, "sink", "rebuild", "--table", "states")
    assert code == 1
    assert done["lines"][0]["rejected"]
    server.query(f'DROP MEASUREMENT "{states}"')
    assert site.call(capsys, "sink", "rebuild", "--table", "states")[0] == 0
    assert site.call(capsys, "sink", "rejected") == (0, [])
    with site.engine() as engine:
        compared(server, engine, LINE)


def test_a_rebuild_without_a_server_says_what_is_left(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write_segments(site.home, LINE, line_records(1, 50), rows=100)
    assert site.call(capsys, "batch")[0] == 0
    site.process.kill()
    code, said = site.call(capsys, "sink", "rebuild")
    assert code == 1
    assert "0 of" in said
    assert "does not answer" in said
    code, standing = site.call(capsys, "sink", "status")
    assert code == 0
    assert "does not answer" in standing["server"]["error"]
    code, said = site.call(capsys, "sink", "rebuild", "--table", "readings")
    assert code == 2
    assert "those that do: signals" in said


def test_what_happened_to_hours_is_told_beside_the_rows(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write_segments(site.home, LINE, line_records(1, 150, spread_ms=3 * HOUR_MS), rows=100)
    assert site.call(capsys, "batch")[0] == 0
    query = f'SELECT * FROM "{schema.EVENTS.measurement}" WHERE "run_id" != \'{schema.DELETED}\''
    with site.engine() as engine:
        site.deliver(engine)
    assert site.server.query(query) == []

    site.plant(max_lateness_s=3_600)
    last = f"{clock.from_ms(hour_start_ms(HOUR + 2)):%Y-%m-%dT%H:%MZ}"
    span = ("--all", "--from", last, "--settings", "current")
    code, done = site.call(capsys, "rerun", *span)
    assert code == 0
    with site.engine() as engine:
        site.deliver(engine)
        site.deliver(engine)  # nothing is told twice
        versions = [engine.ledger.assignment(LINE, HOUR + i) for i in (1, 2)]
    told = {row["kind"]: row for row in site.server.query(query)}
    assert set(told) == {schema.SETTINGS_CHANGED, "backfill"}
    changed, again = told[schema.SETTINGS_CHANGED], told["backfill"]
    assert changed["time"] == again["time"] == hour_start_ms(HOUR + 2)
    assert again["until_ms"] == hour_start_ms(HOUR + 3)
    assert changed["hour"] == clock.partition_key(HOUR + 2)
    assert changed["run_id"] == done["run_id"]
    assert all(one is not None and one.version[:8] in changed["text"] for one in versions)

    site.plant()
    assert site.call(capsys, "rerun", *span)[0] == 0
    with site.engine() as engine:
        site.deliver(engine)
    assert {row["kind"] for row in site.server.query(query)} == {"backfill"}, "it is so no longer"
