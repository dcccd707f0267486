"""Runs of a real daemon, killed at any moment: every number is that of one computation in peace.

`IIOT_TEST_KILLS` kills (8), at moments that follow from `IIOT_TEST_SEED`.
"""

import contextlib
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
import yaml

from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core import schema
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import MS_PER_HOUR, now_ms, partition_key
from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.partitions import partitions
from iiot_platform.orchestration.instance import LOCATION
from iiot_platform.orchestration.naming import ASSET_TABLES, NIGHTLY
from tests.servers import dagster as dagster_server
from tests.servers import run_steps
from tests.servers.capture_log import write_segments
from tests.servers.dagster import Dagster, wait_for
from tests.servers.engines import PLANT, contents, rows_of, settle
from tests.servers.feeds import KEPT_BACK, Feed
from tests.servers.run_steps import BEFORE_FILES, COMMITTED, COMMITTING, WRITTEN
from tests.servers.worker_kills import (
    AFTER,
    BEFORE,
    BETWEEN,
    WINDOW_OF,
    Kill,
    Killer,
    alive,
)

KILLS = int(os.environ.get("IIOT_TEST_KILLS", "8"))
SEED = int(os.environ.get("IIOT_TEST_SEED", "7"))
LINES = ("press_1", "press_2")
MESSAGES = 320 + 20 * KILLS
LOOK_S = 0.02
FAULTS_TIMEOUT_S = 240.0 + 15.0 * KILLS
QUIET_TIMEOUT_S = 300.0
RUN_TIMEOUT_S = 240.0
PLACED = (
    ("live", BEFORE_FILES),
    ("live", WRITTEN),
    ("live", COMMITTING),
    ("live", COMMITTED),
    ("rerun", COMMITTING),
    ("live", COMMITTING),
)
Contents = dict[tuple[str, int], str]
REPOSITORY = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}

RUNS = """query { runsOrError { ... on Runs { results { runId status } } } }"""
RELOAD = """mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) {
  __typename ... on WorkspaceLocationEntry { locationOrLoadError { __typename } } } }"""
LAUNCH = """mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } } }"""
ASSET = """query($key: AssetKeyInput!, $partitions: [String!]) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode {
    assetMaterializations(partitions: $partitions, limit: 1000) { partition } } } }"""
CHECKS = """query($key: AssetKeyInput!) {
  assetCheckExecutions(assetKey: $key, checkName: "live_equals_rerun", limit: 1000) {
    status evaluation { success severity partition
      metadataEntries { label ... on IntMetadataEntry { intValue } } } } }"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("installation")
    found = Settings(home=Home(root / "var"), plant_path=root / "plant.yaml")
    found.home.root.mkdir()
    write_plant(found, threshold=3.5)
    return found


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps")


@pytest.fixture(scope="module")
def dagster(settings: Settings, steps: Path) -> Iterator[Dagster]:
    with dagster_server.running(settings, environ=run_steps.prepare(steps)) as server:
        yield server


def write_plant(settings: Settings, **signal: object) -> None:
    defaults = PLANT.model_dump(mode="json", include={"defaults"}, exclude_unset=True)["defaults"]
    defaults["signal"] |= signal
    text = yaml.safe_dump({"lines": list(LINES), "defaults": defaults})
    settings.plant_path.write_text(text, encoding="utf-8")


class Faults:
    """Everything that happens to the servers, in its order."""

    def __init__(self, dagster: Dagster, settings: Settings, steps: Path, feed: Feed) -> None:
        self._dagster = dagster
        self._settings = settings
        self._steps = steps
        self._feed = feed
        self.killer = Killer(settings, steps, random.Random(SEED))
        self._fed = False
        self._deadline = time.monotonic() + FAULTS_TIMEOUT_S

    def all(self) -> None:
        first, *more = PLACED[:-1]
        self._placed(*first)
        self._change_settings(threshold=3.2, window=25)
        for kind, step in more:
            self._placed(kind, step)
        at_random = KILLS - len(PLACED)
        self._at_random(at_random // 3)
        self._kill_pool()
        self._at_random(at_random // 3)
        self._kill_daemon()
        self._at_random(at_random - 2 * (at_random // 3))

    def last(self) -> None:
        """A run that computes the open hour whole, since its settings have changed."""
        self._change_settings(threshold=2.8, window=25)
        self._feed.rest()
        self._fed = True
        self._placed(*PLACED[-1])

    def _placed(self, kind: str, step: str) -> None:
        run_steps.set_trap(self._steps, kind, step)
        while not self.killer.spring(kind, step):
            self._go_on(f"a {kind} run '{step}'")

    def _at_random(self, count: int) -> None:
        wanted = len(self.killer.kills) + count
        while len(self.killer.kills) < wanted:
            self.killer.look()
            self._go_on(f"{wanted} kills")

    def _change_settings(self, **signal: float) -> None:
        write_plant(self._settings, **signal)
        found = self._dagster.graphql(RELOAD, name=LOCATION)["reloadRepositoryLocation"]
        assert found["locationOrLoadError"]["__typename"] == "RepositoryLocation"

    def _kill_pool(self) -> None:
        """As a whole, while a run is between its files and its commit."""
        run_steps.set_trap(self._steps, "live", WRITTEN)
        while (pid := run_steps.caught(self._steps, "live", WRITTEN)) is None:
            self._go_on("a run to take the pool from")
        family = psutil.Process(self._dagster.process("pool").pid).children(recursive=True)
        self._dagster.kill("pool")
        wait_for(lambda: not any(alive(one.pid) for one in family), "their end", RUN_TIMEOUT_S)
        self.killer.count(pid, placed=True)
        self._dagster.ensure()

    def _kill_daemon(self) -> None:
        self._dagster.kill("daemon")
        self._dagster.start_daemon()

    def _go_on(self, what: str) -> None:
        assert time.monotonic() < self._deadline, f"{what}: not in time; {self.killer.kills}"
        if not self._fed:
            self._feed.look()
        time.sleep(LOOK_S)  # the pace of the log and of the kills


def quiet(engine: Engine) -> bool:
    return all(
        engine.ledger.watermark(line) == engine.log.head(line) and not engine.dirty_hours(line)
        for line in LINES
    )


def in_peace(
    records: list[Record], engine: Engine, line: str, plant: Plant, home: Home
) -> Contents:
    """What one computation of the whole log gives under the same assignments of settings."""
    write_segments(home, line, records)
    after_all = now_ms() + 2 * MS_PER_HOUR
    with contextlib.closing(Engine(home, plant, clock=lambda: after_all)) as once:
        with engine.ledger.reading() as source, once.ledger.transaction() as target:
            for table in (db.SETTINGS, db.ASSIGNMENTS):
                rows = source.execute(sa.select(table).where(table.c.line == line)).mappings()
                target.execute(sa.insert(table), [dict(row) for row in rows])
        taken = once.run_batch(line, run_id="once", row_cap=len(records))
        assert taken is not None
        assert (taken.lo, taken.hi) == (0, len(records))
        settle(once, line)
        return contents(once, line)


def run_ids(engine: Engine, line: str) -> set[str]:
    """The runs that rows name."""
    return {
        name
        for hour in engine.ledger.hours(line)
        for table in schema.TABLES.values()
        for name in rows_of(engine, table, hour, line).column("run_id").unique().to_pylist()
    }


def committed(engine: Engine) -> dict[str, set[str]]:
    """The runs that the ledger knows, by line."""
    return {
        line: {batch["run_id"] for batch in engine.ledger.batches(line, 100_000)} for line in LINES
    }


def check_windows(kills: list[Kill], runs: dict[str, set[str]]) -> None:
    """A run is whole or nothing, and every window was hit."""
    known = set().union(*runs.values())
    hit: Counter[str] = Counter()
    for kill in kills:
        window = AFTER if kill.run_id in known else WINDOW_OF[kill.step]
        hit[window] += 1
        if kill.placed or kill.step not in (COMMITTING, COMMITTED):
            assert window == WINDOW_OF[kill.step], kill
    print(f"{len(kills)} kills: {dict(hit)}")  # noqa: T201 - what a failure has to be seen with
    assert min(hit[window] for window in (BEFORE, BETWEEN, AFTER)) >= 1
    assert {(kill.job.split("_")[0], kill.step) for kill in kills if kill.placed} == {*PLACED}


def settled(dagster: Dagster) -> None:
    """Computes every closed hour once more, in a run of Dagster."""
    params = {"selector": {**REPOSITORY, "jobName": NIGHTLY}}
    launched = dagster.graphql(LAUNCH, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    status = wait_for(lambda: ended(dagster).get(run_id), "the last rerun", RUN_TIMEOUT_S)
    assert status == "SUCCESS"


def ended(dagster: Dagster) -> dict[str, str]:
    """How runs have ended, by id."""
    runs = dagster.graphql(RUNS)["runsOrError"]["results"]
    return {run["runId"]: run["status"] for run in runs if run["status"] in ("SUCCESS", "FAILURE")}


def materialized(dagster: Dagster, line: str, table: str, hours: list[int]) -> set[str]:
    found = dagster.graphql(
        ASSET, key={"path": [line, table]}, partitions=[partition_key(hour) for hour in hours]
    )["assetNodeOrError"]["assetMaterializations"]
    return {event["partition"] for event in found}


def check_dagster(dagster: Dagster, engine: Engine, line: str, closed: list[int]) -> None:
    """Every hour is materialized, and none has a difference without a reason."""
    keys = {partition_key(hour) for hour in closed}
    for table in ASSET_TABLES:
        assert materialized(dagster, line, table, closed) == keys, table
    every = engine.ledger.hours(line)
    open_too = set(map(partition_key, every))
    wait_for(  # a live run commits before it tells Dagster
        lambda: materialized(dagster, line, "readings", every) == open_too,
        "the hours of live runs",
        RUN_TIMEOUT_S,
    )
    found = dagster.graphql(CHECKS, key={"path": [line, "readings"]})["assetCheckExecutions"]
    told = [check["evaluation"] for check in found if check["evaluation"]]
    assert {evaluation["partition"] for evaluation in told} >= keys
    for evaluation in told:
        assert evaluation["success"] or evaluation["severity"] == "WARN", evaluation


@pytest.mark.timeout(900 + 60 * KILLS)
def test_kills_at_any_moment_change_no_number(
    dagster: Dagster, settings: Settings, steps: Path, tmp_path: Path
) -> None:
    print(f"IIOT_TEST_SEED={SEED} IIOT_TEST_KILLS={KILLS}")  # noqa: T201 - to see it again
    plant = load_plant(settings.plant_path, {})
    with contextlib.closing(Engine(settings.home, plant)) as engine:
        feed = Feed(settings.home, engine, LINES, MESSAGES, SEED)
        faults = Faults(dagster, settings, steps, feed)
        faults.all()
        feed.rest(but=KEPT_BACK)
        wait_for(lambda: quiet(engine), "all but the last messages", QUIET_TIMEOUT_S)
        faults.last()
        wait_for(lambda: quiet(engine), "everything", QUIET_TIMEOUT_S)

        runs = committed(engine)
        check_windows(faults.killer.kills, runs)
        plant = load_plant(settings.plant_path, {})
        for line, records in feed.records.items():
            taken = sorted(
                (batch["lo"], batch["hi"])
                for batch in engine.ledger.batches(line, 100_000)
                if batch["kind"] == "live"
            )
            assert (taken[0][0], taken[-1][1]) == (0, len(records))
            assert all(left[1] == right[0] for left, right in itertools.pairwise(taken))
            assert run_ids(engine, line) <= runs[line]
            once = in_peace(records, engine, line, plant, Home(tmp_path / line))
            assert contents(engine, line) == once
            late = (rows_of(engine, schema.LATE_ROWS, h, line) for h in engine.ledger.hours(line))
            assert sum(map(len, late)) > 0
            assert len({part.settings_version for part in partitions(engine.ledger, line)}) > 1

        before = {line: contents(engine, line) for line in LINES}
        closed = {line: engine.closed_hours(line) for line in LINES}
        settled(dagster)
        killed = {kill.run_id for kill in faults.killer.kills}
        wait_for(
            lambda: ended(dagster).keys() >= killed, "the end of what was killed", RUN_TIMEOUT_S
        )
        how = ended(dagster)
        for kill in faults.killer.kills:
            assert how[kill.run_id] == "FAILURE", kill
        for line in LINES:
            assert contents(engine, line) == before[line]
            check_dagster(dagster, engine, line, closed[line])
    assert dagster.stop() == []
