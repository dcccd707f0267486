"""What Dagster does with any run, in the warm pool: retries, limits, logs, command line.

With jobs of a plant's own, a run queue and run retries, which the platform's runs do without.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from iiot_platform.config.settings import Settings
from iiot_platform.core.paths import Home
from iiot_platform.orchestration import processes
from iiot_platform.orchestration.instance import CONFIG_FOLDER
from tests.servers import dagster as dagster_server
from tests.servers.dagster import Dagster, wait_for

TIMEOUT_S = 180.0
pytestmark = pytest.mark.timeout(600)
LIMIT_TAG = "plant/limited"

LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
RUN = """query($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value }
  eventConnection { events { __typename
    ... on MessageEvent { message } ... on LogsCapturedEvent { fileKey } } } } } }"""
RUNS = """query($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs {
  results { runId status parentRunId } } } }"""
LOGS = """query($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }"""
LIMIT = """mutation { setConcurrencyLimit(concurrencyKey: "press", limit: 1) }"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("features")
    (root / "plant.yaml").write_text("lines: [press_1]\n", encoding="utf-8")
    home = Home(root / "var")
    home.root.mkdir()
    return Settings(
        home=home, plant_path=root / "plant.yaml", definitions="tests.servers.own.definitions"
    )


@pytest.fixture(scope="module")
def servers(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    folder = tmp_path_factory.mktemp("config")
    shutil.copytree(CONFIG_FOLDER, folder, dirs_exist_ok=True)
    path = folder / "dagster.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    limits = [{"key": LIMIT_TAG, "value": "yes", "limit": 1}]
    config["run_coordinator"] = {
        "module": "dagster",
        "class": "QueuedRunCoordinator",
        "config": {"dequeue_interval_seconds": 1, "tag_concurrency_limits": limits},
    }
    config["run_retries"] = {"enabled": True, "max_retries": 0}
    config["run_monitoring"]["poll_interval_seconds"] = 2
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    # a worker has more than a megabyte after any run
    with dagster_server.running(settings, pool=("--rss-mb", "1"), config=folder) as server:
        yield server


def launch(dagster: Dagster, job: str, **tags: str) -> str:
    params = {
        "selector": {
            "repositoryLocationName": "iiot",
            "repositoryName": "__repository__",
            "jobName": job,
        },
        "mode": "default",
        "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
    }
    answer = dagster.graphql(LAUNCH, params=params)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def ended(dagster: Dagster, run_id: str) -> tuple[str, list[dict[str, Any]]]:
    """Status and events of a run that has ended."""

    def look() -> tuple[str, list[dict[str, Any]]] | None:
        found = dagster.graphql(RUN, id=run_id)["runOrError"]
        over = found["status"] in {"SUCCESS", "FAILURE", "CANCELED"}
        return (found["status"], found["eventConnection"]["events"]) if over else None

    return wait_for(look, f"the end of run {run_id}", TIMEOUT_S) or ("", [])


def messages(events: list[dict[str, Any]]) -> str:
    return "\n".join(str(event.get("message")) for event in events)


@pytest.fixture(scope="module")
def flaky(servers: Dagster) -> tuple[str, list[dict[str, Any]]]:
    servers.ensure()
    run_id = launch(servers, "flaky", **{"plant/shift": "late"})
    status, events = ended(servers, run_id)
    assert status == "SUCCESS", messages(events)
    return run_id, events


def test_an_op_is_retried_by_its_policy(flaky: tuple[str, list[dict[str, Any]]]) -> None:
    kinds = [event["__typename"] for event in flaky[1]]
    assert kinds.count("ExecutionStepUpForRetryEvent") == 2
    assert kinds.count("ExecutionStepRestartEvent") == 2
    assert kinds.count("ExecutionStepSuccessEvent") == 1
    assert "warm pool" not in messages(flaky[1])


def test_output_of_a_run_can_be_read(
    dagster: Dagster, flaky: tuple[str, list[dict[str, Any]]]
) -> None:
    run_id, events = flaky
    (file_key,) = {event["fileKey"] for event in events if "fileKey" in event}
    found = dagster.graphql(LOGS, key=[run_id, "compute_logs", file_key])["capturedLogs"]
    for attempt in range(3):
        assert f"said to stdout, attempt {attempt}" in found["stdout"]
        assert f"said to stderr, attempt {attempt}" in found["stderr"]


def test_a_run_keeps_its_tags(dagster: Dagster, flaky: tuple[str, list[dict[str, Any]]]) -> None:
    found = dagster.graphql(RUN, id=flaky[0])["runOrError"]["tags"]
    assert {"key": "plant/shift", "value": "late"} in found


def test_a_run_whose_worker_was_killed_is_retried_by_its_policy(dagster: Dagster) -> None:
    run_id = launch(dagster, "dying", **{"dagster/max_retries": "1"})
    status, events = ended(dagster, run_id)
    assert status == "FAILURE"
    assert "was killed by signal 9 (SIGKILL)" in messages(events)

    def retried() -> list[dict[str, Any]]:
        found = dagster.graphql(RUNS, filter={"pipelineName": "dying"})["runsOrError"]["results"]
        return [run for run in found if run["parentRunId"] == run_id]

    (again,) = wait_for(retried, "its retry", TIMEOUT_S)
    assert ended(dagster, again["runId"])[0] == "SUCCESS"


def test_limits_of_the_queue_and_of_pools_hold(dagster: Dagster) -> None:
    assert dagster.graphql(LIMIT)["setConcurrencyLimit"]
    limited = [launch(dagster, "limited", **{LIMIT_TAG: "yes"}) for _ in range(2)]
    pooled = [launch(dagster, "pooled") for _ in range(2)]
    for run_id in limited + pooled:
        status, events = ended(dagster, run_id)
        assert status == "SUCCESS", messages(events)
        assert "warm pool" not in messages(events)


def test_a_worker_above_its_memory_is_replaced(dagster: Dagster) -> None:
    pids = set()
    for _ in range(2):
        _, events = ended(dagster, launch(dagster, "limited", **{LIMIT_TAG: "yes"}))
        pids |= {line for line in messages(events).splitlines() if "Executing steps" in line}
    assert len(pids) == 2


def test_a_job_can_be_launched_from_the_command_line(dagster: Dagster, settings: Settings) -> None:
    environ = processes.dagster_environ(settings, dagster.environ)
    workspace = settings.home.dagster / "workspace.yaml"
    argv = (sys.executable, "-m", "dagster", "job", "launch", "-w", str(workspace), "-j", "tidy")
    done = subprocess.run(argv, env=environ, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found = dagster.graphql(RUNS, filter={"pipelineName": "tidy"})["runsOrError"]["results"]
    status, events = ended(dagster, found[0]["runId"])
    assert status == "SUCCESS", messages(events)
    assert "warm pool" not in messages(events)


def test_run_monitoring_ends_the_runs_of_a_pool_that_is_gone(dagster: Dagster) -> None:
    run_id = launch(dagster, "endless")
    wait_for(
        lambda: dagster.graphql(RUN, id=run_id)["runOrError"]["status"] == "STARTED",
        "its start",
        TIMEOUT_S,
    )
    dagster.kill("pool")
    status, events = ended(dagster, run_id)
    assert status == "FAILURE"
    assert "no pool listens" in messages(events)
