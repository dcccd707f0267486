"""Runs in the warm pool of a real Dagster."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import hour_of, now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.orchestration import processes
from iiot_platform.orchestration.pool import wire
from tests.servers import dagster as dagster_server
from tests.servers.capture_log import write_segments
from tests.servers.dagster import Dagster, wait_for
from tests.servers.lines import signal_records
from tests.servers.worker_kills import alive

LINE = "press_1"
RUNS_PER_WORKER = 3
RUN_TIMEOUT_S = 120.0
PLANT = {"lines": [LINE], "batches": {"interval_s": 5}}

RUN = """query($id: ID!) { runOrError(runId: $id) { ... on Run { status jobName
  eventConnection { events { __typename ... on MessageEvent { message } } } } } }"""
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = """mutation($id: String!) { terminateRun(runId: $id) { __typename
  ... on TerminateRunFailure { message } ... on PythonError { message } } }"""
RELOAD = """mutation { reloadRepositoryLocation(repositoryLocationName: "iiot") { __typename } }"""
JOB = {
    "repositoryLocationName": "iiot",
    "repositoryName": "__repository__",
    "jobName": f"live_{LINE}",
}
TAGS = [{"key": "iiot/kind", "value": "live"}, {"key": "iiot/line", "value": LINE}]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("pool")
    write_plant(root / "plant.yaml", PLANT)
    home = Home(root / "var")
    home.root.mkdir()
    return Settings(home=home, plant_path=root / "plant.yaml")


@pytest.fixture(scope="module")
def servers(settings: Settings) -> Iterator[Dagster]:
    add_data(settings)
    options = ("--runs-per-worker", str(RUNS_PER_WORKER))
    with dagster_server.running(settings, pool=options) as server:
        yield server


@pytest.fixture
def engine(settings: Settings, dagster: Dagster) -> Iterator[Engine]:  # noqa: ARG001 - it is first
    engine = Engine(settings.home, load_plant(settings.plant_path, {}))
    wait_for(lambda: caught_up(engine), "all computed before the test", RUN_TIMEOUT_S)
    wait_for(lambda: not any(w["run_id"] for w in workers(settings)), "no run", RUN_TIMEOUT_S)
    yield engine
    engine.close()


def write_plant(path: Path, plant: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(plant), encoding="utf-8")


def add_data(settings: Settings) -> int:
    """Two seconds of readings; returns the hour of the newest."""
    now = now_ms() // 10 * 10
    times = range(now - 2_000, now, 100)
    write_segments(settings.home, LINE, signal_records(LINE, times))
    return hour_of(times[-1])


def caught_up(engine: Engine) -> bool:
    return engine.ledger.watermark(LINE) == engine.log.head(LINE) > 0


@contextlib.contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Runs can compute and can not commit."""
    with contextlib.closing(sqlite3.connect(settings.home.ledger, timeout=10)) as ledger:
        ledger.execute("BEGIN IMMEDIATE")
        yield
        ledger.rollback()


def report(settings: Settings) -> Any:
    return wire.ask(settings.home.dagster, {"ask": "report"}, timeout_s=5)


def workers(settings: Settings) -> list[dict[str, Any]]:
    return [worker for crew in report(settings)["crews"] for worker in crew["workers"]]


def launch(dagster: Dagster) -> str:
    params = {"selector": JOB, "mode": "default", "executionMetadata": {"tags": TAGS}}
    answer = dagster.graphql(LAUNCH, params=params)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def run_of(dagster: Dagster, run_id: str) -> tuple[str, str]:
    """Status and log of a run."""
    found = dagster.graphql(RUN, id=run_id)["runOrError"]
    events = found["eventConnection"]["events"]
    return found["status"], "\n".join(str(event.get("message")) for event in events)


def ended(dagster: Dagster, run_id: str, timeout_s: float = RUN_TIMEOUT_S) -> tuple[str, str]:
    def look() -> tuple[str, str] | None:
        status, log = run_of(dagster, run_id)
        return (status, log) if status in {"SUCCESS", "FAILURE", "CANCELED"} else None

    return wait_for(look, f"the end of run {run_id}", timeout_s) or ("", "")


def executing(dagster: Dagster, settings: Settings) -> dict[str, Any]:
    """A worker that has a run of the line; there is one whenever data waits."""

    def look() -> dict[str, Any] | None:
        busy = (w for w in workers(settings) if w["run_id"] and w["pid"])
        return next((w for w in busy if is_live(dagster, w["run_id"])), None)

    return wait_for(look, "a run in the pool", RUN_TIMEOUT_S) or {}


def is_live(dagster: Dagster, run_id: str) -> bool:
    """False for a schedule's run, which no lock of the ledger holds."""
    return bool(dagster.graphql(RUN, id=run_id)["runOrError"]["jobName"] == JOB["jobName"])


def started(dagster: Dagster, run_id: str) -> None:
    wait_for(lambda: run_of(dagster, run_id)[0] == "STARTED", "a start", RUN_TIMEOUT_S)


def gone(pid: int) -> None:
    wait_for(lambda: not psutil.pid_exists(pid), f"the end of process {pid}", RUN_TIMEOUT_S)


def pid_of(log: str) -> int:
    found = re.search(r"Executing steps in process \(pid: (\d+)\)", log)
    assert found, log
    return int(found[1])


def test_live_runs_are_executed_by_workers_that_are_replaced(
    dagster: Dagster, settings: Settings, engine: Engine
) -> None:
    add_data(settings)
    wait_for(lambda: caught_up(engine), "the sensor's batch", RUN_TIMEOUT_S)
    pids = []
    for _ in range(RUNS_PER_WORKER + 1):
        status, log = ended(dagster, launch(dagster))
        assert status == "SUCCESS"
        assert "warm pool" not in log
        pids.append(pid_of(log))
    assert 1 < len(set(pids)) < len(pids)
    nursery = report(settings)["crews"][-1]["pid"]
    assert psutil.Process(nursery).num_threads() == 1
    output = settings.home.dagster / "compute_logs"
    assert len(list(output.glob("*/compute_logs/*.err"))) > RUNS_PER_WORKER


def test_a_killed_worker_fails_its_run_and_the_next_attempt_takes_the_batch(
    dagster: Dagster, settings: Settings, engine: Engine
) -> None:
    with locked(settings):
        add_data(settings)
        worker = executing(dagster, settings)
        started(dagster, worker["run_id"])
        os.kill(worker["pid"], signal.SIGKILL)
        status, log = ended(dagster, worker["run_id"])
    assert status == "FAILURE"
    assert f"(pid {worker['pid']}) was killed by signal 9 (SIGKILL)" in log
    wait_for(lambda: caught_up(engine), "the next attempt", RUN_TIMEOUT_S)


def test_a_run_can_be_cancelled(dagster: Dagster, settings: Settings, engine: Engine) -> None:
    with locked(settings):
        add_data(settings)
        worker = executing(dagster, settings)
        started(dagster, worker["run_id"])
        answer = dagster.graphql(TERMINATE, id=worker["run_id"])["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer
        # it has answered, so the signal was sent before the ledger's lock is let go
    assert ended(dagster, worker["run_id"])[0] == "CANCELED"
    gone(worker["pid"])
    wait_for(lambda: caught_up(engine), "the next attempt", RUN_TIMEOUT_S)


def test_a_run_never_uses_an_older_plant_than_its_location(
    dagster: Dagster, settings: Settings, engine: Engine
) -> None:
    before = report(settings)["crews"][-1]
    write_plant(settings.plant_path, {**PLANT, "defaults": {"signal": {"threshold": 7.5}}})
    wanted = load_plant(settings.plant_path, {}).line_settings(LINE).version
    assert engine.settings_for(LINE, 0, keep=False).version != wanted
    assert dagster.graphql(RELOAD)["reloadRepositoryLocation"]["__typename"]
    hour = add_data(settings)
    status, log = ended(dagster, launch(dagster))
    assert status == "SUCCESS"
    assert "warm pool" not in log
    wait_for(lambda: caught_up(engine), "a batch", RUN_TIMEOUT_S)
    assigned = engine.ledger.assignment(LINE, hour)
    assert assigned is not None
    assert assigned.version == wanted
    crews = wait_for(
        lambda: [crew for crew in report(settings)["crews"] if not crew["retired"]],
        "new workers",
        RUN_TIMEOUT_S,
    )
    assert [crew["build"] for crew in crews] != [before["build"]]
    gone(before["pid"])


@pytest.mark.usefixtures("engine")
def test_without_the_pool_a_run_says_so_and_gets_a_process(dagster: Dagster) -> None:
    pool = dagster.process("pool")
    family = psutil.Process(pool.pid).children(recursive=True)
    pool.send_signal(signal.SIGTERM)
    assert pool.wait(RUN_TIMEOUT_S) == 0
    wait_for(lambda: not any(alive(one.pid) for one in family), "their end", RUN_TIMEOUT_S)
    status, log = ended(dagster, launch(dagster))
    assert status == "SUCCESS"
    assert "The warm pool does not take this run: no pool listens" in log
    dagster.ensure()
    assert "warm pool" not in ended(dagster, launch(dagster))[1]


def test_a_pool_that_was_killed_leaves_no_run_behind(
    dagster: Dagster, settings: Settings, engine: Engine
) -> None:
    with locked(settings):
        add_data(settings)
        worker = executing(dagster, settings)
        family = psutil.Process(dagster.process("pool").pid).children(recursive=True)
        dagster.kill("pool")
        wait_for(lambda: not any(alive(one.pid) for one in family), "their end", RUN_TIMEOUT_S)
        dagster.start_pool()
        status, log = ended(dagster, worker["run_id"])
    assert status == "FAILURE"
    # told by who notices first: the pool that is back, or Dagster's monitoring while none is there
    assert "the pool that had taken this run on has ended" in log or "no pool listens" in log
    wait_for(lambda: caught_up(engine), "the next attempt", RUN_TIMEOUT_S)


@pytest.mark.usefixtures("engine")
def test_a_second_pool_is_refused(dagster: Dagster, settings: Settings) -> None:
    command = processes.pool(settings, dagster.environ)
    second = subprocess.run(
        command.argv, env=dict(command.environ), capture_output=True, timeout=120, check=False
    )
    assert second.returncode != 0
    assert b"serves" in second.stderr
    assert processes.pool_ready(settings.home)


@pytest.mark.usefixtures("engine")
def test_no_process_is_left_behind(dagster: Dagster, settings: Settings) -> None:
    wait_for(lambda: workers(settings), "something to stop", RUN_TIMEOUT_S)
    assert dagster.stop() == []
    assert not (settings.home.dagster / wire.SOCKET).exists()
    assert list((settings.home.dagster / "pool").iterdir()) == []
