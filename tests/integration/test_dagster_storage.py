"""Dagster's storage on SQLite and PostgreSQL, under many processes at once."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest
import sqlalchemy as sa
import yaml
from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetKey,
    AssetMaterialization,
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    EventRecordsFilter,
    job,
    op,
)
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable

from iiot_platform.orchestration.event_text import unpacked
from iiot_platform.orchestration.storage_sqlite import Runs, sqlite_parts
from tests.servers.forks import forks

KEYS = [AssetKey(f"table_{number}") for number in range(3)]
PROCESSES = 3
RUNS = 2
TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


@op(out={})
def compute() -> Iterator[AssetMaterialization | AssetCheckEvaluation]:
    for key in KEYS:
        yield AssetMaterialization(key, partition="h", metadata={"rows": 1})
    yield AssetCheckEvaluation(asset_key=KEYS[0], check_name="c", passed=True, partition="h")


@job
def computing() -> None:
    compute()


@pytest.fixture
def folder(tmp_path: Path, storage_kind: str) -> Path:
    assert storage_kind
    storage = {
        "module": "iiot_platform.orchestration.storage",
        "class": "InstanceStorage",
        "config": {"base_dir": str(tmp_path)},
    }
    config = {"storage": {"custom": storage}, "telemetry": {"enabled": False}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return tmp_path


@pytest.fixture
def instance(folder: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.from_config(str(folder)) as instance:
        yield instance


def execute(folder: str, runs: int, environ: dict[str, str]) -> None:
    os.environ.clear()  # the server of the forks has that of another test
    os.environ.update(environ)
    with DagsterInstance.from_config(folder) as instance:
        for _ in range(runs):
            assert computing.execute_in_process(instance=instance).success


def test_a_run_leaves_what_the_ui_shows(
    instance: DagsterInstance, folder: Path, storage_kind: str
) -> None:
    result = computing.execute_in_process(instance=instance)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.status == DagsterRunStatus.SUCCESS
    for key in KEYS:
        latest = instance.get_latest_materialization_event(key)
        assert latest is not None
        assert latest.run_id == result.run_id
        assert instance.get_materialized_partitions(key) == {"h"}
    checks = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [AssetCheckKey(KEYS[0], "c")]
    )
    assert [check.run_id for check in checks.values()] == [result.run_id]
    names = {path.name for path in (folder / "storage").glob("*.db")}
    files = {"event_log.db", "runs.db", "schedules.db"}
    assert names == (files if storage_kind == "sqlite" else set())


def test_an_event_is_stored_whole_or_not_at_all(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = instance.event_log_storage

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle of it")

    monkeypatch.setattr(storage, "_store_asset_event_tags", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        instance.report_runless_asset_event(AssetMaterialization(KEYS[0], partition="h"))
    wanted = EventRecordsFilter(DagsterEventType.ASSET_MATERIALIZATION, asset_key=KEYS[0])
    assert list(storage.get_event_records(wanted)) == []


def test_a_deleted_run_leaves_no_event(instance: DagsterInstance) -> None:
    run_id = computing.execute_in_process(instance=instance).run_id
    assert instance.all_logs(run_id)
    instance.delete_run(run_id)
    assert not instance.all_logs(run_id)


def test_new_events_are_told_to_who_watches(instance: DagsterInstance) -> None:
    run_id = computing.execute_in_process(instance=instance).run_id
    seen = threading.Event()
    told: list[str] = []

    def tell(entry: object, _cursor: str) -> None:
        told.append(str(entry))
        seen.set()

    instance.watch_event_logs(run_id, None, tell)
    assert seen.wait(60)
    instance.end_watch_event_logs(run_id, tell)
    assert told


def test_many_processes_open_and_write_it_at_once(folder: Path) -> None:
    # each begins with nothing open, and all share one import of Dagster
    context = forks()
    processes = [
        context.Process(target=execute, args=(str(folder), RUNS, dict(os.environ)))
        for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    with DagsterInstance.from_config(str(folder)) as instance:
        assert instance.get_runs_count() == PROCESSES * RUNS


@pytest.mark.parametrize("missing", ["", "runs.db", "schedules.db"])
def test_files_that_are_there_are_opened_and_others_made(tmp_path: Path, missing: str) -> None:
    def tables() -> dict[str, set[str]]:
        found = {}
        for path in (tmp_path / "storage").glob("*.db"):
            with closing(sqlite3.connect(path)) as connection:
                found[path.name] = {row[0] for row in connection.execute(TABLES)}
        return found

    with patch.object(Runs, "from_local", wraps=Runs.from_local) as making:
        sqlite_parts(str(tmp_path))
        made = tables()
        assert making.call_count == 1
        if missing:  # a process died before it had made them
            for path in (tmp_path / "storage").glob(f"{missing}*"):
                path.unlink()
            (tmp_path / "storage" / missing).touch()
        runs, _, schedules = sqlite_parts(str(tmp_path))
        assert making.call_count == 1 + bool(missing)
    assert tables() == made
    assert runs.get_runs_count() == 0
    assert not schedules.all_instigator_state()


def test_an_event_takes_a_fraction_and_reads_as_it_was(instance: DagsterInstance) -> None:
    metadata = {f"figure_{number}": number for number in range(20)}
    instance.report_runless_asset_event(AssetMaterialization(KEYS[0], metadata=metadata))
    read = instance.get_latest_materialization_event(KEYS[0])
    assert read is not None
    assert read.asset_materialization is not None
    assert read.asset_materialization.metadata["figure_7"].value == 7
    events = instance.event_log_storage
    assert isinstance(events, SqlEventLogStorage)
    column = sa.type_coerce(SqlEventLogStorageTable.c.event, sa.Text)
    with events.index_connection() as connection:
        (stored,) = connection.execute(sa.select(column)).scalars()
    assert stored.startswith("z1:")
    assert len(stored) < len(unpacked(stored)) / 4
