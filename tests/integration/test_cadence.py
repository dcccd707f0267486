"""The pacemaker beside the sensor, and lines that fall behind, on a real Dagster."""

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.engine import Engine
from iiot_platform.orchestration import processes
from iiot_platform.orchestration.naming import LINE_TAG, PACED_TAG
from tests.servers import dagster as dagster_server
from tests.servers.capture_log import write_segments, write_unreadable
from tests.servers.dagster import Dagster, wait_for
from tests.servers.engines import contents
from tests.servers.lines import signal_records

SLOW, BROKEN, STEADY = LINES = ("press_1", "press_2", "press_3")
ROW_CAP = 2_000
MAX_LAG_S = 8.0
TIMEOUT_S = 180.0
pytestmark = pytest.mark.timeout(600)
PLANT = {
    "lines": list(LINES),
    "batches": {"live_interval_s": 0.5, "row_cap": ROW_CAP, "max_lag_s": MAX_LAG_S},
}
RUNS = """query($filter: RunsFilter!) { runsOrError(filter: $filter, limit: 1000) { ... on Runs {
  results { runId status creationTime endTime tags { key value } } } } }"""
CHECKS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name
    executionForLatestMaterialization { status evaluation { severity metadataEntries {
      label ... on FloatMetadataEntry { floatValue } } } } } } } } } }"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("cadence")
    (root / "plant.yaml").write_text(yaml.safe_dump(PLANT), encoding="utf-8")
    home = Home(root / "var")
    home.root.mkdir()
    return Settings(home=home, plant_path=root / "plant.yaml")


@pytest.fixture(scope="module")
def dagster(settings: Settings) -> Iterator[Dagster]:
    with dagster_server.running(settings) as server:
        wait_for(lambda: processes.daemon_ready(server.port), "daemon", TIMEOUT_S)
        yield server


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[Engine]:
    engine = Engine(settings.home, load_plant(settings.plant_path, {}))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def pacemaker(dagster: Dagster, settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    command = processes.pacemaker(settings, dagster.environ, port=dagster.port)
    process = dagster.start_command(command)
    yield process
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT_S) == 0


@pytest.fixture(scope="module")
def feed(settings: Settings) -> Callable[[str, int], None]:
    """Adds readings to a line, each a millisecond after the one before."""
    reached = dict.fromkeys(LINES, now_ms() - 60_000)

    def add(line: str, rows: int) -> None:
        first = reached[line]
        reached[line] = first + rows
        records = signal_records(line, range(first, first + rows))
        write_segments(settings.home, line, records, rows=500)

    return add


def runs(dagster: Dagster, line: str) -> list[dict[str, Any]]:
    """Live runs of a line, the newest first."""
    tags = [{"key": LINE_TAG, "value": line}, {"key": "iiot/kind", "value": "live"}]
    found = dagster.graphql(RUNS, filter={"tags": tags})["runsOrError"]["results"]
    return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]


def caught_up(engine: Engine, *lines: str) -> bool:
    return all(engine.ledger.watermark(line) == engine.log.head(line) > 0 for line in lines)


def batches(engine: Engine, line: str) -> list[tuple[int, int]]:
    """What live batches have committed, in order."""
    columns = db.BATCHES.c
    query = (
        sa.select(columns.lo, columns.hi)
        .where(columns.line == line, columns.kind == "live")
        .order_by(columns.id)
    )
    with engine.ledger.reading() as connection:
        return [(row.lo, row.hi) for row in connection.execute(query)]


def lag_check(dagster: Dagster, line: str) -> Mapping[str, Any] | None:
    node = dagster.graphql(CHECKS, key={"path": [line, "readings"]})["assetNodeOrError"]
    checks = node["assetChecksOrError"]["checks"]
    (found,) = (check for check in checks if check["name"] == "lag_within_bound")
    execution: Mapping[str, Any] | None = found["executionForLatestMaterialization"]
    return execution


def assert_dense(engine: Engine, line: str) -> None:
    """Every offset is in exactly one batch."""
    done = batches(engine, line)
    assert [lo for lo, _ in done] == [0, *(hi for _, hi in done[:-1])]
    assert done[-1][1] == engine.log.head(line)


@pytest.mark.usefixtures("pacemaker")
def test_sensor_and_pacemaker_together_compute_every_record_once(
    dagster: Dagster,
    settings: Settings,
    feed: Callable[[str, int], None],
    engine: Engine,
    tmp_path: Path,
) -> None:
    both = (SLOW, STEADY)
    wanted = 10
    while len(batches(engine, STEADY)) < wanted:
        before = len(batches(engine, STEADY))
        for line in both:
            feed(line, 40)
        wait_for(lambda n=before: len(batches(engine, STEADY)) > n, "a batch", TIMEOUT_S)
    wait_for(lambda: caught_up(engine, *both), "all computed", TIMEOUT_S)
    found = {line: wait_for(lambda x=line: ended(dagster, x), "runs", TIMEOUT_S) for line in both}
    for line in both:
        assert_dense(engine, line)
        assert {run["status"] for run in found[line]} == {"SUCCESS"}
        keys = [run["tags"]["dagster/run_key"] for run in found[line]]
        assert len(keys) == len(set(keys))
        assert any(PACED_TAG in run["tags"] for run in found[line])
    _assert_as_computed_at_once(engine, settings.home, tmp_path, both)


@pytest.mark.usefixtures("pacemaker")
def test_a_line_that_is_behind_or_broken_holds_up_no_other(
    dagster: Dagster,
    settings: Settings,
    feed: Callable[[str, int], None],
    engine: Engine,
    tmp_path: Path,
) -> None:
    capped = 6
    now = now_ms() - 60_000
    unreadable = signal_records(BROKEN, range(now, now + 500))
    repair = write_unreadable(settings.home, BROKEN, unreadable, aside=Home(tmp_path))
    before = {line: len(batches(engine, line)) for line in LINES}
    feed(SLOW, capped * ROW_CAP)
    for step in range(4):
        feed(STEADY, 40)
        wait_for(lambda: caught_up(engine, STEADY), f"batch {step} of the line", TIMEOUT_S)
    assert len(batches(engine, STEADY)) == before[STEADY] + 4
    wait_for(lambda: statuses(dagster, BROKEN).count("FAILURE") >= 2, "failures", TIMEOUT_S)
    assert "SUCCESS" not in statuses(dagster, BROKEN)
    wait_for(lambda: said(lag_check(dagster, BROKEN)) == ("FAILED", "ERROR"), "lag", TIMEOUT_S)
    repair()
    wait_for(lambda: caught_up(engine, *LINES), "all computed", TIMEOUT_S)
    wait_for(lambda: said(lag_check(dagster, BROKEN))[0] == "SUCCEEDED", "no lag", TIMEOUT_S)
    sizes = [hi - lo for lo, hi in batches(engine, SLOW)[before[SLOW] :]]
    assert sizes == [ROW_CAP] * capped
    for line in LINES:
        assert_dense(engine, line)


def said(check: Mapping[str, Any] | None) -> tuple[str, str | None]:
    if check is None:
        return ("NEVER", None)
    evaluation = check["evaluation"]
    return (check["status"], evaluation and evaluation["severity"])


def statuses(dagster: Dagster, line: str) -> list[str]:
    return [run["status"] for run in runs(dagster, line)]


def ended(dagster: Dagster, line: str) -> list[dict[str, Any]]:
    found = runs(dagster, line)
    return found if all(run["endTime"] for run in found) else []


def _assert_as_computed_at_once(
    engine: Engine, log: Home, folder: Path, lines: tuple[str, ...]
) -> None:
    """The tables are those of one batch over the same log."""
    home = Home(folder)
    home.capture.symlink_to(log.capture)
    whole = Engine(home, Plant.model_validate(PLANT))
    for line in lines:
        whole.run_batch(line, run_id="whole", row_cap=1_000_000)
        assert contents(engine, line) == contents(whole, line)
    whole.close()
