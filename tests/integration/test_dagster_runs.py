"""Batches, backfills and failures on a real Dagster."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import MS_PER_HOUR, hour_of, now_ms, partition_key
from iiot_platform.core.pages import partition_page
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.orchestration.naming import (
    ASSET_TABLES,
    ATTEMPT_TAG,
    KIND_TAG,
    LINE_TAG,
    LIVE,
    LineNames,
    line_names,
)
from tests.servers import dagster as dagster_server
from tests.servers.capture_log import write_segments, write_unreadable
from tests.servers.dagster import Dagster, shown_key, wait_for
from tests.servers.lines import signal_records, within_its_hour

LINES = ("press_1", "Línea 2 (Nord)")
BROKEN = "press_3"
"""Has no data but in the test that has a run of it fail."""
BACKFILLED = 3
RUN_TIMEOUT_S = 120.0

ASSET = """query($key: AssetKeyInput!, $partitions: [String!]) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode {
    isExecutable groupName
    partitionStats { numMaterialized numFailed }
    assetMaterializations(partitions: $partitions, limit: 50) {
      partition runId metadataEntries { label ... on IntMetadataEntry { intValue } } }
    assetObservations(limit: 1) { metadataEntries { label } }
    assetChecksOrError { ... on AssetChecks { checks { name } } }
  } } }"""
CHECK = """query($key: AssetKeyInput!, $check: String!) {
  assetCheckExecutions(assetKey: $key, checkName: $check, limit: 50) {
    status evaluation { partition } } }"""
RUNS = """query($filter: RunsFilter) { runsOrError(filter: $filter, limit: 50) { ... on Runs {
  results { runId status tags { key value } } } } }"""
LAUNCH = """mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) { __typename
    ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status numPartitions runs(limit: 50) { runId status } } } }"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("installation")
    plant = root / "plant.yaml"
    plant.write_text(yaml.safe_dump({"lines": [*LINES, BROKEN]}), encoding="utf-8")
    return Settings(home=Home(root / "var"), plant_path=plant)


@pytest.fixture(scope="module")
def names(settings: Settings) -> dict[str, LineNames]:
    plant = load_plant(settings.plant_path, {})
    return {names.line: names for names in line_names(plant.line_names)}


@pytest.fixture(scope="module")
def hour(settings: Settings) -> int:
    """The hour of the newest data; earlier hours have some too."""
    settings.home.root.mkdir(parents=True)
    newest = within_its_hour(now_ms() - 60_000, 50_000)
    for line in LINES:
        for back in range(BACKFILLED, -1, -1):
            start = newest - back * MS_PER_HOUR
            write_segments(
                settings.home, line, signal_records(line, range(start, start + 50_000, 500))
            )
    return hour_of(newest)


@pytest.fixture(scope="module")
def servers(settings: Settings, hour: int) -> Iterator[Dagster]:  # noqa: ARG001 - data first
    with dagster_server.running(settings) as server:
        yield server


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[Engine]:
    engine = Engine(settings.home, load_plant(settings.plant_path, {}))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def caught_up(servers: Dagster, engine: Engine) -> None:
    servers.ensure()
    wait_for(
        lambda: all(engine.ledger.watermark(line) == engine.log.head(line) for line in LINES),
        "a batch of every line",
        RUN_TIMEOUT_S,
    )
    wait_for(lambda: all(live(servers, line) for line in LINES), "their end", RUN_TIMEOUT_S)


@pytest.fixture(scope="module")
def backfill(
    servers: Dagster,
    caught_up: None,  # noqa: ARG001 - the live batches come first
    names: dict[str, LineNames],
    hour: int,
) -> str:
    """A backfill as the UI launches it; the daemon looks at backfills every 30 s."""
    servers.ensure()
    line = names[LINES[1]]
    launched = servers.graphql(
        LAUNCH,
        params={
            "assetSelection": [{"path": line.table(table).path} for table in ASSET_TABLES],
            "partitionNames": [partition_key(hour - back) for back in range(BACKFILLED, 0, -1)],
            "fromFailure": False,
        },
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return str(launched["backfillId"])


def live(dagster: Dagster, line: str, status: str = "SUCCESS") -> list[dict[str, Any]]:
    """Live runs of a line that have ended so."""
    tags = [{"key": LINE_TAG, "value": line}, {"key": KIND_TAG, "value": LIVE}]
    found = dagster.graphql(RUNS, filter={"statuses": [status], "tags": tags})
    return [
        {**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}}
        for run in found["runsOrError"]["results"]
    ]


def asset(dagster: Dagster, path: list[str], *partitions: str) -> Any:
    return dagster.graphql(ASSET, key={"path": path}, partitions=list(partitions) or None)[
        "assetNodeOrError"
    ]


@pytest.mark.usefixtures("caught_up", "backfill")
def test_live_batches_materialize_their_hours(
    dagster: Dagster, names: dict[str, LineNames], hour: int
) -> None:
    for line in LINES:
        page = partition_page("http://dagster", line, "readings", hour)
        seen = asset(dagster, shown_key(page), partition_key(hour))
        assert seen["groupName"] == names[line].safe
        assert seen["partitionStats"]["numMaterialized"] == BACKFILLED + 1
        figures = {
            entry["label"]: entry.get("intValue")
            for entry in seen["assetMaterializations"][-1]["metadataEntries"]
        }
        assert figures["dagster/partition_row_count"] == 100
        checks = {check["name"] for check in seen["assetChecksOrError"]["checks"]}
        assert checks == {"completeness", "lag_within_bound", "live_equals_rerun"}
        key = {"path": names[line].table("readings").path}
        for name in ("completeness", "lag_within_bound"):
            executed = dagster.graphql(CHECK, key=key, check=name)["assetCheckExecutions"]
            told = {
                one["status"]
                for one in executed
                if one["evaluation"] and one["evaluation"]["partition"] == partition_key(hour)
            }
            assert told == {"SUCCEEDED"}
        raw = names[line].raw.path
        assert not asset(dagster, raw)["isExecutable"]
        wait_for(  # the sensor tells it on its own
            lambda at=raw: asset(dagster, at)["assetObservations"], "the log", RUN_TIMEOUT_S
        )


def test_a_failed_run_is_overtaken_by_the_next_attempt(
    dagster: Dagster, settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    now = now_ms()
    records = signal_records(BROKEN, range(now, now + 2_000, 100))
    repair = write_unreadable(settings.home, BROKEN, records, aside=Home(tmp_path))
    wait_for(lambda: live(dagster, BROKEN, "FAILURE"), "a failed run", RUN_TIMEOUT_S)
    assert engine.ledger.watermark(BROKEN) == 0
    repair()
    wait_for(
        lambda: engine.ledger.watermark(BROKEN) == len(records), "the next attempt", RUN_TIMEOUT_S
    )
    wait_for(
        lambda: any(int(run["tags"].get(ATTEMPT_TAG, 0)) > 1 for run in live(dagster, BROKEN)),
        "a good run with a later attempt",
        RUN_TIMEOUT_S,
    )


def test_a_backfill_is_one_run_that_covers_each_hour(
    dagster: Dagster, backfill: str, names: dict[str, LineNames], hour: int
) -> None:
    def done() -> list[dict[str, Any]]:
        found = dagster.graphql(BACKFILL, id=backfill)["partitionBackfillOrError"]["runs"]
        ended = [run for run in found if run["status"] in {"SUCCESS", "FAILURE"}]
        return found if found and len(ended) == len(found) else []

    found = wait_for(done, "the backfill's run", RUN_TIMEOUT_S)
    assert [run["status"] for run in found] == ["SUCCESS"]
    keys = [partition_key(hour - back) for back in range(BACKFILLED, 0, -1)]
    for table in ASSET_TABLES:
        seen = asset(dagster, names[LINES[1]].table(table).path, *keys)
        by_run = [
            event["partition"]
            for event in seen["assetMaterializations"]
            if event["runId"] == found[0]["runId"]
        ]
        assert sorted(by_run) == keys


@pytest.mark.usefixtures("caught_up")
def test_no_process_is_left_after_stop(dagster: Dagster, settings: Settings) -> None:
    assert len(dagster.family()) >= 3
    assert dagster.stop() == []
    assert list((settings.home.dagster / "compute_logs").glob("*/compute_logs/*.err"))
