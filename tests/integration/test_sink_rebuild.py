"""Databases behind the tables: away for long, killed, filled anew, configured late or no more."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from iiot_platform.cli.app import main
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import INFLUXDB, POSTGRESQL
from iiot_platform.core import clock, schema
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import hour_of, hour_start_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.outbox import LedgerOutbox
from iiot_platform.orchestration.delivery import SinkDelivery, delivery_to
from iiot_platform.sinks.drain import DrainReport
from iiot_platform.sinks.influxdb import InfluxSink
from iiot_platform.sinks.opening import open_sink
from iiot_platform.sinks.postgresql import PostgresSink
from iiot_platform.sinks.sink import Sink
from tests.reference.sink_rows import compared
from tests.reference.table_rows import make_rows
from tests.servers import databases
from tests.servers.capture_log import write_segments
from tests.servers.databases import Database, InfluxDatabase, PostgresDatabase
from tests.servers.postgres import PostgresServer, running_postgres
from tests.servers.streams import BASE_MS, HOUR_MS, line_records

LINE = "line1"
HOUR = hour_of(BASE_MS)
DRAIN_S = 60.0
VERSION_3 = "influxdb that can not delete"
MEASURED = tuple(schema.measured())


@dataclass
class Site:
    """A line on disk and a database of the tests' own behind it."""

    folder: Path
    database: Database
    name: str
    environ_without: bool = False
    """True while the database is not configured."""

    @property
    def home(self) -> Home:
        return Home(self.folder / "home")

    @property
    def environ(self) -> dict[str, str]:
        return {
            "IIOT_HOME": str(self.home.root),
            "IIOT_PLANT": str(self.folder / "plant.yaml"),
            **({} if self.environ_without else self.database.environ),
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
        with contextlib.closing(Engine(self.home, plant, sinks=(self.name,))) as engine:
            yield engine

    def call(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
        """What a command answers in JSON, and its exit code."""
        with pytest.raises(SystemExit) as ended:
            main((*arguments, "--json"), self.environ)
        said = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(said.out) if said.out else said.err

    def delivery(self, engine: Engine) -> SinkDelivery:
        return delivery_to(self.name, self.database.settings)(engine)

    def outbox(self, engine: Engine) -> LedgerOutbox:
        return LedgerOutbox(engine.ledger, engine.store, self.name)

    def deliver(self, engine: Engine) -> DrainReport:
        report = self.delivery(engine).drain(LINE, DRAIN_S)
        assert (report.remaining, report.rejected, report.error) == (0, 0, None)
        return report


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=databases.NAMES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == POSTGRESQL:  # a cluster takes seconds to make
        cluster: PostgresServer = request.getfixturevalue("cluster")
        cluster.ensure()
        found = Site(tmp_path, PostgresDatabase(cluster), request.param)
        found.plant()
        yield found
        return
    with databases.running(INFLUXDB, tmp_path / "database") as database:
        assert isinstance(database, InfluxDatabase)
        assert database.server.faults is not None
        database.server.faults.is_version_3 = request.param == VERSION_3
        found = Site(tmp_path, database, INFLUXDB)
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


def count_writes(patch: pytest.MonkeyPatch) -> Counter[str]:
    """What sinks are asked to write from now on, by table."""
    asked: Counter[str] = Counter()
    for sink in (InfluxSink, PostgresSink):

        def counted(self: Sink, table: schema.Table, rows: pa.Table, real: Any = sink.write) -> Any:
            asked[table.name] += 1
            return real(self, table, rows)

        patch.setattr(sink, "write", counted)
    return asked


def test_a_server_that_was_away_for_long_gets_everything_in_full_requests(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segments(site.home, LINE, line_records(1, 300), rows=10)
    site.database.kill()
    with site.engine() as engine:
        delivery, outbox = site.delivery(engine), site.outbox(engine)
        engine.run_batch(LINE, run_id="live", row_cap=10)
        assert delivery.drain(LINE, 0.0).error is not None
        while engine.run_batch(LINE, run_id="live", row_cap=10):
            pass  # the batches go on
        waiting = outbox.backlog(LINE)
        assert waiting > 100
        outbox.failed(LINE, "not reachable", clock.now_ms() + 60_000)
        assert not delivery.behind(LINE), "its back-off is not over"
        site.database.start()
        outbox.failed(LINE, "the time is over", clock.now_ms() - 1)
        assert delivery.behind(LINE)
        with monkeypatch.context() as patched:
            asked = count_writes(patched)
            report = site.deliver(engine)
        assert report.entries == waiting
        assert asked.total() < waiting / 5
        compared(site.database, engine, LINE)


def test_a_server_killed_between_delete_and_write_gets_the_hour_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segments(site.home, LINE, line_records(1, 200), rows=100)
    with site.engine() as engine:
        while engine.run_batch(LINE, run_id="live", row_cap=1_000):
            pass
        site.deliver(engine)
        outbox = site.outbox(engine)
        outbox.rebuild(LINE, [HOUR], ["signals"])
        with monkeypatch.context() as patched:
            site.database.die_in_rewrite(patched)
            report = site.delivery(engine).drain(LINE, DRAIN_S)
        assert report.error is not None
        assert report.remaining == 1
        site.database.start()
        if site.database.is_atomic:
            compared(site.database, engine, LINE)
        else:
            with pytest.raises(AssertionError):
                compared(site.database, engine, LINE)
        outbox.failed(LINE, "the time is over", clock.now_ms() - 1)
        site.deliver(engine)
        compared(site.database, engine, LINE)


@pytest.mark.parametrize("site", [*databases.NAMES, VERSION_3], indirect=True)
def test_rows_of_every_table_vanish_with_their_readings(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write_segments(site.home, LINE, late_in_one_hour(900), rows=200)
    for command in (("batch",), ("rerun", "--all", "--from", "2020-01-01")):
        assert site.call(capsys, *command)[0] == 0
    with site.engine() as engine:
        site.deliver(engine)
        before = compared(site.database, engine, LINE)
    site.plant(max_lateness_s=3_600)  # what was two hours late is no longer taken
    assert site.call(capsys, "rerun", "--all", "--outdated")[0] == 0
    with site.engine() as engine:
        site.deliver(engine)
        after = compared(site.database, engine, LINE)
        found = {name for name, rows in before.items() if rows.keys() - after[name].keys()}
        assert found >= {table.name for table in MEASURED if table.kind is not None}
        site.plant()  # and are taken again: what was marked stands again
    assert site.call(capsys, "rerun", "--all", "--outdated")[0] == 0
    with site.engine() as engine:
        site.deliver(engine)
        assert {k: v.keys() for k, v in compared(site.database, engine, LINE).items()} == {
            k: v.keys() for k, v in before.items()
        }


def test_a_database_is_filled_anew_from_the_tables(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write_segments(site.home, LINE, line_records(1, 300), rows=100)
    assert site.call(capsys, "batch")[0] == 0
    code, standing = site.call(capsys, "sink", "status")
    assert code == 0
    (standing,) = standing["sinks"]
    assert standing["server"]["can_delete"]
    assert standing["lines"][0]["pending"] > 0
    with site.engine() as engine:
        site.deliver(engine)
    site.database.spoil(schema.SIGNALS, LINE, BASE_MS, BASE_MS + HOUR_MS)
    with open_sink(site.database.settings) as sink:  # others come
        sink.write(schema.STATES, make_rows(schema.STATES, 5, line=LINE, start_ms=BASE_MS + 7))

    span = ("--from", f"{clock.from_ms(BASE_MS):%Y-%m-%dT%H:%MZ}")
    code, done = site.call(capsys, "sink", "rebuild", "--table", "signals", *span)
    assert (code, done["lines"][0]["rejected"]) == (0, [])
    with site.engine() as engine, pytest.raises(AssertionError, match="states"):
        compared(site.database, engine, LINE)
    code, done = site.call(capsys, "sink", "rebuild")
    (line,) = done["lines"]
    assert (code, line["hours"]) == (0, 2)
    with site.engine() as engine:
        tables = compared(site.database, engine, LINE)
        assert line["points"] == sum(map(len, tables.values()))
    (standing,) = site.call(capsys, "sink", "status")[1]["sinks"]
    assert standing["lines"][0]["pending"] == standing["lines"][0]["missing_hours"] == 0


def test_what_is_refused_is_told_and_can_be_tried_again(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write_segments(site.home, LINE, line_records(1, 300), rows=100)
    assert site.call(capsys, "batch")[0] == 0
    with open_sink(site.database.settings) as sink:
        sink.write(schema.STATES, make_rows(schema.STATES, 1, line="other", start_ms=BASE_MS))
    site.database.poison(schema.STATES, "value", BASE_MS)
    with site.engine() as engine:
        report = site.delivery(engine).drain(LINE, DRAIN_S)
        assert report.rejected > 0
    code, found = site.call(capsys, "sink", "rejected")
    assert code == 0
    assert {one["table"] for one in found} == {"states"}
    assert all("value" in one["reason"] and "states" in one["reason"] for one in found)
    code, done = site.call(capsys, "sink", "rebuild", "--table", "states")
    assert code == 1
    assert done["lines"][0]["rejected"]
    site.database.drop(schema.STATES)
    assert site.call(capsys, "sink", "rebuild", "--table", "states")[0] == 0
    assert site.call(capsys, "sink", "rejected") == (0, [])
    with site.engine() as engine:
        compared(site.database, engine, LINE)


def test_a_rebuild_without_a_server_says_what_is_left(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write_segments(site.home, LINE, line_records(1, 50), rows=100)
    assert site.call(capsys, "batch")[0] == 0
    site.database.kill()
    code, said = site.call(capsys, "sink", "rebuild")
    assert code == 1
    assert "0 of" in said
    assert "does not answer" in said
    code, standing = site.call(capsys, "sink", "status")
    assert code == 0
    assert "does not answer" in standing["sinks"][0]["server"]["error"]
    site.database.start()
    code, said = site.call(capsys, "sink", "rebuild", "--table", "readings")
    assert code == 2
    assert "those that do: signals" in said


def test_a_database_that_is_configured_later_gets_all_and_one_that_is_no_more_is_shown(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write_segments(site.home, LINE, line_records(1, 300), rows=100)
    site.environ_without = True
    assert site.call(capsys, "batch")[0] == 0
    assert site.call(capsys, "sink", "status")[0] == 2, "there is none"
    site.environ_without = False
    (standing,) = site.call(capsys, "sink", "status")[1]["sinks"]
    (line,) = standing["lines"]
    assert (line["pending"], line["missing_hours"]) == (0, 2)
    with site.engine() as engine:
        assert site.delivery(engine).due(LINE)
        site.deliver(engine)
        assert not site.delivery(engine).due(LINE)
        compared(site.database, engine, LINE)
        site.outbox(engine).rebuild(LINE, [HOUR], ["states", "signals"])

    code, said = site.call(capsys, "sink", "drop", "--sink", site.name)
    assert code == 2
    assert "is configured" in said
    assert site.call(capsys, "sink", "rebuild", "--sink", "oracle")[0] == 2
    site.environ_without = True
    code, shown = site.call(capsys, "sink", "status")
    assert (code, shown["sinks"]) == (0, [])
    assert shown["not_configured"] == [{"sink": site.name, "pending": 2, "rejected": 0}]
    code, said = site.call(capsys, "sink", "rebuild", "--sink", site.name)
    assert code == 2
    assert "iiot sink drop" in said
    assert site.call(capsys, "sink", "drop", "--sink", site.name) == (0, {"dropped": 2})
    assert site.call(capsys, "sink", "status")[0] == 2


def test_what_happened_to_hours_is_told_beside_the_rows(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write_segments(site.home, LINE, line_records(1, 150, spread_ms=3 * HOUR_MS), rows=100)
    assert site.call(capsys, "batch")[0] == 0
    with site.engine() as engine:
        site.deliver(engine)
    assert site.database.shown(schema.EVENTS) == []

    site.plant(max_lateness_s=3_600)
    last = f"{clock.from_ms(hour_start_ms(HOUR + 2)):%Y-%m-%dT%H:%MZ}"
    span = ("--all", "--from", last, "--settings", "current")
    code, done = site.call(capsys, "rerun", *span)
    assert code == 0
    with site.engine() as engine:
        site.deliver(engine)
        site.deliver(engine)  # nothing is told twice
        versions = [engine.ledger.assignment(LINE, HOUR + i) for i in (1, 2)]
    told = {row["kind"]: row for row in site.database.shown(schema.EVENTS)}
    assert set(told) == {schema.SETTINGS_CHANGED, "backfill"}
    changed, again = told[schema.SETTINGS_CHANGED], told["backfill"]
    assert changed["ts"] == again["ts"] == hour_start_ms(HOUR + 2)
    assert again["until_ms"] == hour_start_ms(HOUR + 3)
    assert changed["hour"] == clock.partition_key(HOUR + 2)
    assert changed["run_id"] == done["run_id"]
    assert all(one is not None and one.version[:8] in changed["text"] for one in versions)

    site.plant()
    assert site.call(capsys, "rerun", *span)[0] == 0
    with site.engine() as engine:
        site.deliver(engine)
    assert {row["kind"] for row in site.database.shown(schema.EVENTS)} == {"backfill"}, (
        "it is so no longer"
    )
