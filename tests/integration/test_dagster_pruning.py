"""What live runs leave in Dagster's storage goes; what the catalog shows stays."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    HourlyPartitionsDefinition,
)
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventType,
    StepMaterializationData,
)
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._core.test_utils import freeze_time
from dagster._core.utils import make_new_run_id

from iiot_platform.config.plant import BatchSettings
from iiot_platform.orchestration import space as spaces
from iiot_platform.orchestration.naming import KIND_TAG, LINE_TAG, LIVE, SETTLE
from iiot_platform.orchestration.pool.journal import Journal
from iiot_platform.orchestration.retention import prune

TABLES = [AssetKey(["a", name]) for name in ("readings", "states", "cycles")]
CHECK = AssetCheckKey(TABLES[0], "completeness")
START = datetime(2026, 3, 1, tzinfo=UTC)
HOURS = HourlyPartitionsDefinition(start_date="2026-03-01-00:00", timezone="UTC")
HOUR = timedelta(hours=1)
SETTINGS = BatchSettings()
TOLERANCE = 0.2


@pytest.fixture
def folder(tmp_path: Path, storage_kind: str) -> Path:
    assert storage_kind
    part = {"config": {"home": str(tmp_path)}}
    config = {
        "storage": {
            "custom": {
                "module": "iiot_platform.orchestration.storage",
                "class": "InstanceStorage",
                "config": {"base_dir": str(tmp_path)},
            }
        },
        "compute_logs": {
            "module": "iiot_platform.orchestration.compute_logs",
            "class": "RedirectingComputeLogs",
            **part,
        },
        "telemetry": {"enabled": False},
    }
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return tmp_path


@pytest.fixture
def instance(folder: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.from_config(str(folder)) as instance:
        yield instance


def key_of(hour: datetime) -> str:
    return hour.strftime("%Y-%m-%d-%H:00")


class Plant:
    """Tells an instance of runs that nobody has executed."""

    def __init__(self, instance: DagsterInstance) -> None:
        self.instance = instance

    def run(
        self,
        kind: str,
        at: datetime,
        hours: Sequence[datetime],
        *,
        end: DagsterEventType | None = DagsterEventType.PIPELINE_SUCCESS,
        planned: Sequence[datetime] = (),
    ) -> str:
        run_id = make_new_run_id()
        with freeze_time(at):
            tags = {KIND_TAG: kind, LINE_TAG: "a"}
            self.instance.add_run(DagsterRun(job_name=kind, run_id=run_id, tags=tags))
            self._tell(run_id, DagsterEventType.PIPELINE_START)
            for key in TABLES:
                for hour in planned:
                    data: Any = AssetMaterializationPlannedData(key, partition=key_of(hour))
                    self._tell(run_id, DagsterEventType.ASSET_MATERIALIZATION_PLANNED, data)
            for hour in hours:
                for key in TABLES:
                    data = StepMaterializationData(
                        AssetMaterialization(
                            key,
                            partition=key_of(hour),
                            metadata={"rows": 1, "text": "x" * 400},
                            tags={"colour": "red"},
                        )
                    )
                    self._tell(run_id, DagsterEventType.ASSET_MATERIALIZATION, data)
                data = AssetCheckEvaluation(
                    asset_key=CHECK.asset_key,
                    check_name=CHECK.name,
                    passed=True,
                    partition=key_of(hour),
                )
                self._tell(run_id, DagsterEventType.ASSET_CHECK_EVALUATION, data)
            for number in range(3):
                self.instance.report_engine_event(f"message {number}", job_name=kind, run_id=run_id)
            if end is not None:
                self._tell(run_id, end)
        return run_id

    def _tell(self, run_id: str, kind: DagsterEventType, data: Any = None) -> None:
        event = DagsterEvent(kind.value, "job", event_specific_data=data)
        self.instance.report_dagster_event(event, run_id)


@pytest.fixture
def plant(instance: DagsterInstance) -> Plant:
    return Plant(instance)


def traces(instance: DagsterInstance, run_id: str) -> dict[str, int]:
    events, runs = instance.event_log_storage, instance.run_storage
    assert isinstance(events, SqlEventLogStorage)
    assert isinstance(runs, SqlRunStorage)
    found: dict[str, int] = {}
    for table, open_ in (
        (SqlEventLogStorageTable, events.index_connection),
        (AssetCheckExecutionsTable, events.index_connection),
        (RunsTable, runs.connect),
        (RunTagsTable, runs.connect),
    ):
        query = sa.select(sa.func.count()).where(table.c.run_id == run_id)
        with open_() as connection:
            found[table.name] = connection.execute(query).scalar_one()
    return found


def orphan_tags(instance: DagsterInstance) -> int:
    events = instance.event_log_storage
    assert isinstance(events, SqlEventLogStorage)
    query = sa.select(sa.func.count()).where(
        AssetEventTagsTable.c.event_id.not_in(sa.select(SqlEventLogStorageTable.c.id))
    )
    with events.index_connection() as connection:  # type: ignore[no-untyped-call]  # Dagster's
        count: int = connection.execute(query).scalar_one()
    return count


def catalog(instance: DagsterInstance, *, rebuilt: bool = False) -> dict[str, Any]:
    """What the UI shows of all partitions; `rebuilt` forgets what Dagster has kept of it."""
    events = instance.event_log_storage
    shown: dict[str, Any] = {}
    for key in TABLES:
        if rebuilt:
            events.wipe_asset_cached_status(key)
        status = get_and_update_asset_status_cache_value(instance, key, HOURS)
        assert status is not None
        shown[key.to_user_string()] = (
            events.get_latest_storage_id_by_partition(key, DagsterEventType.ASSET_MATERIALIZATION),
            set(status.deserialize_materialized_partition_subsets(HOURS).get_partition_keys()),
            set(status.deserialize_failed_partition_subsets(HOURS).get_partition_keys()),
        )
    newest = events.get_latest_asset_check_execution_by_key([CHECK])
    shown["checks"] = {key: found.run_id for key, found in newest.items()}
    return shown


def test_old_live_runs_go_and_the_catalog_stays(
    instance: DagsterInstance, plant: Plant, folder: Path
) -> None:
    live: list[str] = []
    settled: list[str] = []
    for number in range(10):
        hour = START + number * HOUR
        live += [plant.run(LIVE, hour + minute * HOUR / 12, [hour]) for minute in range(12)]
        settled.append(plant.run(SETTLE, hour + 1.1 * HOUR, [hour]))
    unsettled = [plant.run(LIVE, START + 10 * HOUR, [START + 10 * HOUR]) for _ in range(3)]
    old_failure = plant.run(LIVE, START, [], end=DagsterEventType.PIPELINE_FAILURE)
    backfill = plant.run("backfill", START + HOUR, [START])
    running = plant.run(LIVE, START, [START], end=None)
    newest = plant.run(SETTLE, START + 2.2 * HOUR, [START])  # the running one stands no more
    for run_id in live:
        logs = folder / "compute_logs" / run_id / "compute_logs" / "op.err"
        logs.parent.mkdir(parents=True)
        logs.write_text("said", encoding="utf-8")
    Journal(folder).add(live[0])
    before, rebuilt = catalog(instance), catalog(instance, rebuilt=True)
    assert before == rebuilt

    now = START + 17 * HOUR
    pruned = prune(instance, SETTINGS, now=now)
    assert pruned.runs == len(live) + len(unsettled) - 1
    for run_id in live:
        assert not any(traces(instance, run_id).values())
        assert not (folder / "compute_logs" / run_id).exists()
    assert Journal(folder).runs() == []
    assert orphan_tags(instance) == 0
    # the newest of the hour that has not been settled is what the catalog shows
    assert [instance.has_run(run_id) for run_id in unsettled] == [False, False, True]
    for run_id in (*settled, old_failure, backfill, running, newest):
        assert instance.has_run(run_id)
        assert traces(instance, run_id)["event_logs"] >= 5
    assert catalog(instance) == before
    assert catalog(instance, rebuilt=True) == before
    assert prune(instance, SETTINGS, now=now).runs == 0


def test_hours_that_live_runs_work_on_keep_them(instance: DagsterInstance, plant: Plant) -> None:
    runs = [plant.run(LIVE, START, [START + hour * HOUR]) for hour in (0, 0, 1, 1)]
    working = {("a", key_of(START)), ("b", key_of(START + HOUR))}
    prune(instance, SETTINGS, now=START + 24 * HOUR, unsettled=working)
    assert [instance.has_run(run_id) for run_id in runs] == [True, True, False, True]


def test_every_kind_has_its_time(instance: DagsterInstance, plant: Plant) -> None:
    failed = plant.run(LIVE, START, [], end=DagsterEventType.PIPELINE_FAILURE)
    settled = plant.run(SETTLE, START, [START])
    running = plant.run(SETTLE, START, [START], end=None)
    standing = plant.run(SETTLE, START, [START])
    last = plant.run(SETTLE, START + HOUR, [START + HOUR])
    assert traces(instance, standing)["event_logs"] == 9

    def left(days: float) -> list[bool]:
        prune(instance, SETTINGS, now=START + timedelta(days=days))
        return [instance.has_run(run_id) for run_id in (failed, settled, running, standing, last)]

    assert left(13.9) == [True, True, True, True, True]
    assert left(14.1) == [False, True, True, True, True]
    assert left(29.9) == [False, True, True, True, True]
    before = catalog(instance)
    assert left(31) == [False, False, True, True, True]
    assert catalog(instance, rebuilt=True) == before
    assert traces(instance, running)["event_logs"] == 8
    # what the run said has gone; that it was, and what it made, stands
    assert traces(instance, standing)["event_logs"] == 5
    assert traces(instance, standing)["asset_check_executions"] == 1


def test_a_partition_that_failed_stays_failed(instance: DagsterInstance, plant: Plant) -> None:
    plant.run(LIVE, START, [START, START + HOUR])
    failure = DagsterEventType.PIPELINE_FAILURE
    failed = plant.run("backfill", START + HOUR, [], planned=[START], end=failure)
    mended = plant.run("backfill", START + HOUR, [], planned=[START + HOUR], end=failure)
    plant.run(SETTLE, START + 2 * HOUR, [START + HOUR])
    before = catalog(instance, rebuilt=True)
    assert before["a/readings"][2] == {key_of(START)}
    prune(instance, SETTINGS, now=START + timedelta(days=100))
    assert instance.has_run(failed)
    assert not instance.has_run(mended)
    assert catalog(instance, rebuilt=True) == before


def test_observations_of_the_log_go_but_the_newest(instance: DagsterInstance) -> None:
    raw, other = AssetKey(["a", "raw"]), AssetKey(["b", "raw"])
    for minute in range(20):
        with freeze_time(START + timedelta(minutes=minute)):
            instance.report_runless_asset_event(AssetObservation(raw))
    with freeze_time(START):
        instance.report_runless_asset_event(AssetObservation(other))
    keep_s = SETTINGS.keep_live_runs_s + 60 * 15
    pruned = prune(instance, SETTINGS, now=START + timedelta(seconds=keep_s))
    assert pruned.observations == 15
    assert len(instance.fetch_observations(raw, limit=100).records) == 5
    prune(instance, SETTINGS, now=START + 100 * HOUR)
    assert len(instance.fetch_observations(raw, limit=100).records) == 1
    assert len(instance.fetch_observations(other, limit=100).records) == 1


def test_the_storage_that_dagster_has_by_default_is_pruned_too(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}", encoding="utf-8")
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        plant = Plant(instance)
        live = [plant.run(LIVE, START, [START]) for _ in range(3)]
        settled = plant.run(SETTLE, START + HOUR, [START])
        before = catalog(instance)
        assert prune(instance, SETTINGS, now=START + 24 * HOUR).runs == len(live)
        assert catalog(instance, rebuilt=True) == before
        assert [run.run_id for run in instance.get_runs()] == [settled]
        assert instance.all_logs(settled)
        left = {path.stem for path in (tmp_path / "history").rglob("*.db")}
        assert settled in left
        assert not left & set(live)


@pytest.mark.parametrize(
    "storage_kind", ["sqlite"], indirect=True
)  # of the other tests/benchmarks/bench_growth.py shows it
def test_storage_stops_growing(instance: DagsterInstance, plant: Plant) -> None:
    """Many hours of some batches each; live runs are kept for four hours, others for eight."""
    settings = BatchSettings(keep_live_runs_s=4 * 3_600, keep_runs_s=8 * 3_600)
    used: list[int] = []
    taken: list[int] = []
    for number in range(27):
        hour = START + number * HOUR
        for batch in range(12):
            plant.run(LIVE, hour + batch * HOUR / 12, [hour])
        plant.run(SETTLE, hour + HOUR, [hour])
        prune(instance, settings, now=hour + HOUR)
        spaces.reclaim(instance)
        found = spaces.space(instance)
        used.append(found.used)
        taken.append(found.bytes)
    for sizes in (used, taken):
        middle, last = sizes[9:18], sizes[18:]
        growth = sum(last) / sum(middle) - 1
        assert abs(growth) < TOLERANCE, (growth, sizes)
    statuses = [DagsterRunStatus.SUCCESS]
    assert {run.status for run in instance.get_runs()} == set(statuses)


@pytest.mark.parametrize(
    "storage_kind", ["sqlite"], indirect=True
)  # PostgreSQL fills its own pages again
def test_what_is_free_is_given_back(instance: DagsterInstance, plant: Plant) -> None:
    for number in range(100):
        plant.run(LIVE, START + number * HOUR / 100, [START])
    full = spaces.space(instance)
    assert spaces.reclaim(instance, worth_bytes=1) == 0
    prune(instance, SETTINGS, now=START + 24 * HOUR)
    freed = spaces.space(instance)
    assert freed.bytes == full.bytes
    assert freed.free > full.bytes / 2
    assert spaces.reclaim(instance) == 0
    given = spaces.reclaim(instance, worth_bytes=2**16)
    assert given > 0.3 * full.bytes
    assert spaces.space(instance).bytes == full.bytes - given
    assert len(instance.get_runs()) == 1
