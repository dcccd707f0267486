"""What the launcher asks, and what it makes of the answer."""

from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.launcher.base import LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from iiot_platform.orchestration.naming import KIND_TAG, LIVE
from iiot_platform.orchestration.pool import wire
from iiot_platform.orchestration.pool.launcher import WarmPoolRunLauncher

RUN_ID = "b7a3b1d6-7d53-4a2b-9a6f-0a4a3f4a0001"


class Pool:
    """Answers what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: dict[str, Any] | Exception = {"refused": None}

    def ask(self, _folder: Path, message: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        assert timeout_s < 10
        self.asked.append(message)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    pool = Pool()
    monkeypatch.setattr(wire, "ask", pool.ask)
    return pool


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs that got a process of their own."""
    found: list[str] = []
    monkeypatch.setattr(
        "dagster.DefaultRunLauncher.launch_run",
        lambda _self, context: found.append(context.dagster_run.run_id),
    )
    return found


@pytest.fixture
def instance() -> DagsterInstance:
    return DagsterInstance.ephemeral()


@pytest.fixture
def launcher(instance: DagsterInstance) -> WarmPoolRunLauncher:
    launcher = WarmPoolRunLauncher("/nowhere")
    launcher.register_instance(instance)
    return launcher


def add_run(
    instance: DagsterInstance, status: DagsterRunStatus, tags: dict[str, str] | None = None
) -> DagsterRun:
    return instance.add_run(DagsterRun("job", RUN_ID, status=status, tags=tags or {}))


def messages(instance: DagsterInstance) -> list[str]:
    return [entry.message for entry in instance.all_logs(RUN_ID)]


@pytest.mark.parametrize(("kind", "live"), [(LIVE, True), ("rerun", False)])
def test_a_run_is_given_to_the_pool(
    pool: Pool,
    launcher: WarmPoolRunLauncher,
    instance: DagsterInstance,
    launched: list[str],
    kind: str,
    live: bool,  # noqa: FBT001 - a parameter
) -> None:
    run = add_run(instance, DagsterRunStatus.STARTING, {KIND_TAG: kind})
    launcher.launch_run(LaunchRunContext(run, None))
    assert launched == messages(instance) == []
    assert pool.asked[0]["run_id"] == RUN_ID
    assert pool.asked[0]["live"] is live


@pytest.mark.parametrize(
    "answer",
    [
        {"refused": "64 live runs wait already"},
        wire.PoolAwayError(Path("pool.sock"), ConnectionRefusedError(111, "64 live runs wait")),
    ],
)
def test_a_run_that_the_pool_does_not_take_says_why(
    pool: Pool,
    launcher: WarmPoolRunLauncher,
    instance: DagsterInstance,
    launched: list[str],
    answer: dict[str, Any] | Exception,
) -> None:
    pool.answer = answer
    launcher.launch_run(LaunchRunContext(add_run(instance, DagsterRunStatus.STARTING), None))
    assert launched == [RUN_ID]
    assert "The warm pool does not take this run: " in messages(instance)[0]
    assert "64 live runs wait" in messages(instance)[0]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"state": "running", "about": "worker 1"}, WorkerStatus.RUNNING),
        ({"state": "waiting", "about": "one of 3"}, WorkerStatus.RUNNING),
        ({"state": "failed", "about": "killed"}, WorkerStatus.FAILED),
        ({"state": "unknown", "about": "not known"}, WorkerStatus.NOT_FOUND),
        (wire.PoolAwayError(Path("x"), OSError("gone")), WorkerStatus.NOT_FOUND),
        (wire.PoolSilentError(Path("x"), 3.0), WorkerStatus.RUNNING),
    ],
)
def test_the_health_of_a_worker(
    pool: Pool,
    launcher: WarmPoolRunLauncher,
    instance: DagsterInstance,
    answer: dict[str, Any] | Exception,
    status: WorkerStatus,
) -> None:
    pool.answer = answer
    run = add_run(instance, DagsterRunStatus.STARTED)
    found = launcher.check_run_worker_health(run)
    assert found.status == status
    assert found.msg == launcher.get_run_worker_debug_info(run)


def test_a_run_with_a_process_of_its_own_is_not_the_pools(
    pool: Pool, launcher: WarmPoolRunLauncher, instance: DagsterInstance
) -> None:
    run = add_run(instance, DagsterRunStatus.STARTED, {GRPC_INFO_TAG: '{"host": "h", "port": 1}'})
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    assert launcher.get_run_worker_debug_info(run) is None
    assert pool.asked == []


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"known": True}, DagsterRunStatus.CANCELING),
        ({"known": False}, DagsterRunStatus.CANCELED),
        (wire.PoolAwayError(Path("x"), OSError("gone")), DagsterRunStatus.CANCELED),
    ],
)
def test_a_run_that_nobody_executes_is_cancelled_at_once(
    pool: Pool,
    launcher: WarmPoolRunLauncher,
    instance: DagsterInstance,
    answer: dict[str, Any] | Exception,
    status: DagsterRunStatus,
) -> None:
    pool.answer = answer
    add_run(instance, DagsterRunStatus.STARTED)
    assert launcher.terminate(RUN_ID)
    run = instance.get_run_by_id(RUN_ID)
    assert run is not None
    assert run.status == status


def test_a_run_that_has_ended_is_not_cancelled(
    pool: Pool, launcher: WarmPoolRunLauncher, instance: DagsterInstance
) -> None:
    add_run(instance, DagsterRunStatus.SUCCESS)
    assert not launcher.terminate(RUN_ID)
    assert pool.asked == []
