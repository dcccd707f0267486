"""The pool alone: what it refuses, what it does when its workers can not be had."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from iiot_platform.config.settings import Settings
from iiot_platform.core.paths import Home
from iiot_platform.orchestration import processes
from iiot_platform.orchestration.instance import prepare_instance
from iiot_platform.orchestration.pool import sources, wire
from tests.servers.dagster import wait_for
from tests.servers.worker_kills import alive

TIMEOUT_S = 60.0
WAITS = "c0ffee00-0000-4000-8000-000000000001"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    plant = tmp_path / "plant.yaml"
    plant.write_text("lines: [{nane: press}]\n", encoding="utf-8")
    return Settings(home=Home(tmp_path / "var"), plant_path=plant)


@pytest.fixture
def instance(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    prepare_instance(settings.home)
    monkeypatch.setenv("DAGSTER_HOME", str(settings.home.dagster))
    with DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def pool(
    settings: Settings,
    instance: DagsterInstance,  # noqa: ARG001 - it makes the folder
) -> Iterator["subprocess.Popen[bytes]"]:
    command = processes.pool(settings, os.environ)
    with subprocess.Popen(command.argv, env=dict(command.environ), stderr=sys.stderr) as process:
        wait_for(lambda: processes.pool_ready(settings.home), "the pool", TIMEOUT_S)
        yield process
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


@pytest.fixture
def launch(settings: Settings) -> Callable[..., str | None]:
    """Hands a run to the pool; returns why it does not take it."""

    def ask(run_id: str = WAITS, code: str = sources.code().build()) -> str | None:
        message = {"ask": "launch", "run_id": run_id, "live": True, "code": code}
        refused: str | None = wire.ask(settings.home.dagster, message, timeout_s=5)["refused"]
        return refused

    return ask


def report(settings: Settings) -> Any:
    return wire.ask(settings.home.dagster, {"ask": "report"}, timeout_s=5)


def add_run(instance: DagsterInstance) -> None:
    instance.add_run(DagsterRun("live_press", WAITS, status=DagsterRunStatus.STARTING))


def status(instance: DagsterInstance) -> DagsterRunStatus:
    run = instance.get_run_by_id(WAITS)
    assert run is not None
    return run.status


@pytest.mark.usefixtures("pool")
def test_a_plant_that_can_not_be_loaded_is_told_and_a_repaired_one_is_taken(
    settings: Settings, instance: DagsterInstance, launch: Callable[..., str | None]
) -> None:
    refused = launch()
    assert refused is not None
    assert "the definitions can not be loaded" in refused
    assert "plant.yaml" in refused
    settings.plant_path.write_text("lines: [press, {nane: x}]\n", encoding="utf-8")
    add_run(instance)
    assert launch() is None  # another content: it may be loaded
    wait_for(lambda: status(instance) == DagsterRunStatus.FAILURE, "its failure", TIMEOUT_S)
    assert "can not be loaded" in "".join(entry.message for entry in instance.all_logs(WAITS))
    settings.plant_path.write_text("lines: [press]\n", encoding="utf-8")
    assert launch("c0ffee00-0000-4000-8000-000000000002") is None
    wait_for(lambda: [c["error"] for c in report(settings)["crews"]] == [None], "it", TIMEOUT_S)
    assert launch(code="0000") == "it runs other code than this process"


@pytest.mark.usefixtures("pool")
def test_a_nursery_that_dies_is_replaced(
    settings: Settings, launch: Callable[..., str | None]
) -> None:
    settings.plant_path.write_text("lines: [press]\n", encoding="utf-8")
    assert launch() is None
    wait_for(lambda: not report(settings)["waiting"], "workers", TIMEOUT_S)
    before = report(settings)["crews"][-1]
    killed = [before["pid"], *(worker["pid"] for worker in before["workers"] if worker["pid"])]
    os.kill(before["pid"], signal.SIGKILL)
    wait_for(
        lambda: [c["pid"] for c in report(settings)["crews"] if c["build"]] not in ([], killed[:1]),
        "another nursery",
        TIMEOUT_S,
    )
    wait_for(lambda: not any(map(alive, killed)), "the end of its workers", TIMEOUT_S)
    assert launch() is None


def test_a_run_that_waits_when_the_pool_ends_has_failed_once_it_is_back(
    settings: Settings,
    instance: DagsterInstance,
    pool: "subprocess.Popen[bytes]",
    launch: Callable[..., str | None],
) -> None:
    settings.plant_path.write_text("lines: [press]\n", encoding="utf-8")
    add_run(instance)
    assert launch() is None
    assert report(settings)["waiting"] == 1  # for workers that know the new plant
    family = psutil.Process(pool.pid).children(recursive=True)
    pool.terminate()
    assert pool.wait(TIMEOUT_S) == 0
    wait_for(lambda: not any(alive(one.pid) for one in family), "their end", TIMEOUT_S)
    command = processes.pool(settings, os.environ)
    with subprocess.Popen(command.argv, env=dict(command.environ)) as again:
        wait_for(lambda: status(instance) == DagsterRunStatus.FAILURE, "its failure", TIMEOUT_S)
        again.terminate()
    log = "".join(entry.message for entry in instance.all_logs(WAITS))
    assert "had not begun" in log or "has ended" in log
