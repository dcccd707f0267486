"""A whole plant on PostgreSQL: live batches, a backfill, and a server that is killed meanwhile.

Over TLS, and by a user who owns two schemas and may do nothing else.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_HOUR, hour_of, now_ms, partition_key
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.errors import LedgerError
from iiot_platform.orchestration.naming import ASSET_TABLES, line_names
from tests.servers import dagster as dagster_server
from tests.servers.capture_log import write_segments
from tests.servers.certificates import Authority
from tests.servers.dagster import Dagster, wait_for
from tests.servers.lines import signal_records, within_its_hour
from tests.servers.postgres import PASSWORD, PostgresServer, running_postgres

LINES = ("press_1", "Línea 2 (Nord)")
BATCHES = 3
BACK_H = 2
STEP_MS = 100
TIMEOUT_S = 120.0

LAUNCH = """mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) { __typename
    ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status } } }"""


class Feed:
    """Readings of every line, without a hole between two calls."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._told_ms = now_ms() // STEP_MS * STEP_MS
        self.rows = 0

    def history(self) -> int:
        """Some readings of an hour that has closed; returns the hour."""
        start = within_its_hour(self._told_ms - BACK_H * MS_PER_HOUR, 10_000)
        for line in LINES:
            records = signal_records(line, range(start, start + 10_000, STEP_MS))
            write_segments(self._home, line, records)
        self.rows += 100
        return hour_of(start)

    def go_on(self) -> None:
        """Everything up to now."""
        until = now_ms() // STEP_MS * STEP_MS
        times = range(self._told_ms, until, STEP_MS)
        for line in LINES:
            write_segments(self._home, line, signal_records(line, times))
        self.rows += len(times)
        self._told_ms = until

    def until(self, seen: Callable[[], object], what: str) -> None:
        """Goes on until something is seen."""

        def look() -> object:
            self.go_on()
            return seen()

        wait_for(look, what, TIMEOUT_S)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server that no other test uses, since it is killed; it speaks TLS alone."""
    with running_postgres(Authority(tmp_path / "authority")) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, server: PostgresServer) -> Settings:
    plant = tmp_path / "plant.yaml"
    plant.write_text(yaml.safe_dump({"lines": list(LINES)}), encoding="utf-8")
    home = Home(tmp_path / "var", server.lent_database())
    home.root.mkdir()
    return Settings(home=home, plant_path=plant)


def batches(engine: Engine, line: str) -> list[dict[str, Any]]:
    return [batch for batch in engine.ledger.batches(line, 1_000) if batch["kind"] == "live"]


def launch_backfill(dagster: Dagster, line: str, hour: int) -> str:
    (names,) = line_names([line])
    launched = dagster.graphql(
        LAUNCH,
        params={
            "assetSelection": [{"path": names.table(table).path} for table in ASSET_TABLES],
            "partitionNames": [partition_key(hour)],
            "fromFailure": False,
        },
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return str(launched["backfillId"])


def test_nothing_is_lost_when_the_server_is_killed(
    settings: Settings, server: PostgresServer
) -> None:
    home = settings.home
    feed = Feed(home)
    old_hour = feed.history()
    plant = load_plant(settings.plant_path, {})
    with dagster_server.running(settings) as dagster, closing(Engine(home, plant)) as engine:
        feed.until(lambda: all(batches(engine, line) for line in LINES), "a batch of every line")
        backfill = launch_backfill(dagster, LINES[0], old_hour)
        server.kill()
        feed.go_on()
        with pytest.raises(LedgerError, match="Connection refused"):
            engine.ledger.watermark(LINES[0])
        server.start()
        feed.until(
            lambda: all(len(batches(engine, line)) > BATCHES for line in LINES),
            "batches after the restart",
        )
        query = {"id": backfill}
        feed.until(
            lambda: (
                dagster.graphql(BACKFILL, **query)["partitionBackfillOrError"]["status"]
                == "COMPLETED_SUCCESS"
            ),
            "the backfill",
        )
        wait_for(
            lambda: all(engine.ledger.watermark(line) == feed.rows for line in LINES),
            "everything computed",
            TIMEOUT_S,
        )
    with closing(Engine(home, plant)) as engine:
        kinds = {batch["kind"] for batch in engine.ledger.batches(LINES[0], 1_000)}
        assert kinds - {"settle"} == {"live", "backfill"}  # the old hour may be due meanwhile
        for line in LINES:
            check(engine, line, feed.rows)
    assert not home.ledger.exists()
    assert not list(home.dagster.rglob("*.db"))
    assert home.database is not None
    database = sa.create_engine(home.database.get_secret_value(), poolclass=sa.NullPool)
    with database.connect() as connection:
        assert {"dagster", "iiot"} <= set(sa.inspect(connection).get_schema_names())
    for log in home.logs.glob("*.log"):
        assert PASSWORD not in log.read_text(encoding="utf-8", errors="replace"), log


def check(engine: Engine, line: str, rows: int) -> None:
    """Every offset was taken once, and live equals rerun."""
    taken = sorted((batch["lo"], batch["hi"]) for batch in batches(engine, line))
    assert [lo for lo, _ in taken] == [0, *(hi for _, hi in taken[:-1])]
    assert taken[-1][1] == rows
    found = [
        engine.rerun(line, hour, run_id="again", kind="rerun") for hour in engine.ledger.hours(line)
    ]
    assert all(report.equal for report in found), found
    assert sum(report.report.total[schema.READINGS.name] for report in found) == rows
