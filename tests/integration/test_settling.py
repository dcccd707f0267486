"""Settling, and edits of the plant file, on a real Dagster."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import MS_PER_HOUR, hour_of, now_ms, partition_key
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.partitions import partition
from iiot_platform.orchestration.instance import LOCATION
from iiot_platform.orchestration.naming import LINE_TAG
from tests.servers import dagster as dagster_server
from tests.servers.capture_log import write_segments
from tests.servers.dagster import Dagster, wait_for
from tests.servers.lines import signal_records

LINE = "press_1"
CLOSED = 2
NEWEST_CLOSED = 2
RUN_TIMEOUT_S = 120.0
REPOSITORY = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}

SCHEDULES = """query($repository: RepositorySelector!) {
  schedulesOrError(repositorySelector: $repository) { ... on Schedules { results {
    name cronSchedule executionTimezone scheduleState { status } } } } }"""
DRY_RUN = """mutation($schedule: ScheduleSelector!) {
  scheduleDryRun(selectorData: $schedule, timestamp: 1790000000) { __typename
    ... on DryRunInstigationTick { evaluationResult { skipReason error { message }
      runRequests { runKey tags { key value } } } } } }"""
LAUNCH = """mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } } }"""
RUN = """query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"""
CHECK = """query($key: AssetKeyInput!, $check: String!) {
  assetCheckExecutions(assetKey: $key, checkName: $check, limit: 20) {
    status evaluation { success partition } } }"""
RELOAD = """mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) {
  __typename ... on WorkspaceLocationEntry { locationOrLoadError { __typename } } } }"""


@pytest.fixture(scope="module")
def newest() -> int:
    """The newest hour with data; it is closed whatever the time."""
    return hour_of(now_ms()) - NEWEST_CLOSED


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, newest: int) -> Settings:
    root = tmp_path_factory.mktemp("installation")
    found = Settings(home=Home(root / "var"), plant_path=root / "plant.yaml")
    found.home.root.mkdir()
    write_plant(found, threshold=3.5)
    for back in range(CLOSED, -1, -1):
        start = (newest - back) * MS_PER_HOUR + MS_PER_HOUR // 2
        times = range(start, start + 50_000, 500)
        write_segments(found.home, LINE, signal_records(LINE, times))
    return found


def write_plant(settings: Settings, **signal: object) -> None:
    plant = {"lines": [LINE], "timezone": "Europe/Rome", "defaults": {"signal": signal}}
    settings.plant_path.write_text(yaml.safe_dump(plant), encoding="utf-8")


def write_now(settings: Settings) -> None:
    now = now_ms()
    records = signal_records(LINE, range(now - 5_000, now, 100))
    write_segments(settings.home, LINE, records)


@pytest.fixture(scope="module")
def servers(settings: Settings) -> Iterator[Dagster]:
    with dagster_server.running(settings) as server:
        yield server


@pytest.fixture
def plant_put_back(dagster: Dagster, settings: Settings) -> Iterator[None]:
    """For a test that edits the plant file."""
    yield
    write_plant(settings, threshold=3.5)
    assert reload(dagster) == "RepositoryLocation"


@pytest.fixture
def engine(settings: Settings, dagster: Dagster) -> Iterator[Engine]:  # noqa: ARG001 - it runs
    engine = Engine(settings.home, load_plant(settings.plant_path, {}))
    caught_up(engine)
    yield engine
    engine.close()


def caught_up(engine: Engine) -> None:
    wait_for(
        lambda: engine.ledger.watermark(LINE) == engine.log.head(LINE),
        "a live batch",
        RUN_TIMEOUT_S,
    )


def settings_in_force(engine: Engine) -> str:
    """The version of the settings of the hour that was written last."""
    found = partition(engine.ledger, LINE, engine.ledger.hours(LINE)[-1])
    return "" if found is None else found.settings_version


def ended(dagster: Dagster, run_id: str) -> str:
    status: str = dagster.graphql(RUN, id=run_id)["runOrError"]["status"]
    return status if status in {"SUCCESS", "FAILURE"} else ""


def test_schedules_run_without_being_switched_on(dagster: Dagster) -> None:
    found = dagster.graphql(SCHEDULES, repository=REPOSITORY)["schedulesOrError"]["results"]
    assert {
        (s["name"], s["cronSchedule"], s["executionTimezone"], s["scheduleState"]["status"])
        for s in found
    } == {
        ("settle", "*/5 * * * *", "UTC", "RUNNING"),
        ("nightly_rerun", "0 3 * * *", "Europe/Rome", "RUNNING"),
        ("tidy", "35 * * * *", "UTC", "RUNNING"),
        ("prune", "50 * * * *", "UTC", "RUNNING"),
    }


def test_closed_hours_are_settled_and_the_check_passes(
    dagster: Dagster, engine: Engine, newest: int
) -> None:
    hours = engine.unsettled_hours(LINE)
    if hours:  # the daemon's own tick may have come first
        selector = {**REPOSITORY, "scheduleName": "settle"}
        tick = dagster.graphql(DRY_RUN, schedule=selector)["scheduleDryRun"]["evaluationResult"]
        assert tick["error"] is None
        (request,) = tick["runRequests"]
        assert {"key": LINE_TAG, "value": LINE} in request["tags"]
        params: dict[str, Any] = {
            "selector": {**REPOSITORY, "jobName": "settle"},
            "executionMetadata": {"tags": [{"key": LINE_TAG, "value": LINE}]},
        }
        launched = dagster.graphql(LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess"
        run_id = launched["run"]["runId"]
        assert wait_for(lambda: ended(dagster, run_id), "settling", RUN_TIMEOUT_S) == "SUCCESS"
    wait_for(lambda: not engine.unsettled_hours(LINE), "every closed hour", RUN_TIMEOUT_S)
    closed = {partition_key(newest - back) for back in range(CLOSED + 1)}
    wait_for(  # the ledger has them before the run tells Dagster
        lambda: {key for key, *_ in checks(dagster)} >= closed, "their checks", RUN_TIMEOUT_S
    )
    found = {check for check in checks(dagster) if check[0] in closed}
    assert found == {(key, "SUCCEEDED", True) for key in closed}


def checks(dagster: Dagster) -> set[tuple[str, str, bool]]:
    """Partition, status and success of each comparison of a rerun with what was there."""
    key = {"path": [LINE, "readings"]}
    found = dagster.graphql(CHECK, key=key, check="live_equals_rerun")["assetCheckExecutions"]
    return {
        (check["evaluation"]["partition"], check["status"], check["evaluation"]["success"])
        for check in found
        if check["evaluation"]
    }


@pytest.mark.usefixtures("plant_put_back")
def test_an_edit_counts_after_a_reload_and_a_broken_one_stops_nothing(
    dagster: Dagster, engine: Engine, settings: Settings
) -> None:
    before = load_plant(settings.plant_path, {}).line_settings(LINE).version
    write_plant(settings, threshold=4.5)
    edited = load_plant(settings.plant_path, {}).line_settings(LINE).version
    write_now(settings)
    caught_up(engine)
    assert settings_in_force(engine) == before  # not reloaded yet
    assert reload(dagster) == "RepositoryLocation"
    write_now(settings)
    caught_up(engine)
    assert settings_in_force(engine) == edited

    settings.plant_path.write_text("lines: [press_1]\nwindow: 3\n", encoding="utf-8")
    write_now(settings)
    caught_up(engine)
    assert reload(dagster) == "RepositoryLocation"
    write_now(settings)
    caught_up(engine)
    assert settings_in_force(engine) == edited


def reload(dagster: Dagster) -> str:
    found = dagster.graphql(RELOAD, name=LOCATION)["reloadRepositoryLocation"]
    return str(found["locationOrLoadError"]["__typename"])


@pytest.mark.usefixtures("engine")
def test_no_process_is_left_after_stop(dagster: Dagster) -> None:
    assert len(dagster.family()) >= 4  # the code server has a process within
    assert dagster.stop() == []
