"""The run launcher that gives runs to the warm pool, and starts a process where it can not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from dagster import DagsterRun, DagsterRunStatus, DefaultRunLauncher, StringSource
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._serdes import ConfigurableClassData

from iiot_platform.orchestration.naming import KIND_TAG, LIVE
from iiot_platform.orchestration.pool import sources, wire
from iiot_platform.orchestration.pool.wire import PoolAwayError, PoolSilentError

_TIMEOUT_S: Final = 3.0
_STATES: Final = {
    "running": WorkerStatus.RUNNING,
    "waiting": WorkerStatus.RUNNING,
    # whoever asks looks at the run again before it believes this
    "ended": WorkerStatus.FAILED,
    "failed": WorkerStatus.FAILED,
    "unknown": WorkerStatus.NOT_FOUND,
}


class WarmPoolRunLauncher(DefaultRunLauncher):
    """Gives runs to the pool of the instance.

    Args:
        home: the instance folder.
        inst_data: where its configuration came from.
    """

    def __init__(self, home: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._folder = Path(home)
        self._code = sources.code()

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """`home`: the instance folder."""
        return {"home": StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, str]
    ) -> Self:
        """The launcher that `dagster.yaml` asks for."""
        return cls(config_value["home"], inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Gives a run to the pool; it says in the run's log where it could not."""
        run = context.dagster_run
        refused = self._refusal(run)
        if refused is None:
            self._run_ids.add(run.run_id)
            return
        self._instance.report_engine_event(
            f"The warm pool does not take this run: {refused}. It gets a process of its own.",
            run,
            cls=self.__class__,
        )
        super().launch_run(context)

    def _refusal(self, run: DagsterRun) -> str | None:
        question = {
            "ask": "launch",
            "run_id": run.run_id,
            "live": run.tags.get(KIND_TAG) == LIVE,
            "code": self._code.build(),
        }
        try:
            refused: str | None = self._ask(question)["refused"]
        except (PoolAwayError, PoolSilentError) as error:
            return str(error)
        return refused

    def terminate(self, run_id: str) -> bool:
        """Cancels a run: interrupts its worker, or takes it out of those that wait."""
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is None or run.is_finished or GRPC_INFO_TAG in run.tags:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]  # Dagster has no types here
        self._instance.report_run_canceling(run)
        try:
            known = bool(self._ask({"ask": "cancel", "run_id": run_id})["known"])
        except PoolSilentError as error:
            self._instance.report_engine_event(str(error), run, cls=self.__class__)
            return False
        except PoolAwayError:
            known = False
        if not known:
            self._cancel_lost(run)
        return True

    def _cancel_lost(self, run: DagsterRun) -> None:
        """Nobody executes the run, so that nobody else would say that it has ended."""
        now = self._instance.get_run_by_id(run.run_id)
        if now is not None and now.status == DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(now, "Cancelled; no process executed this run.")

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring may ask for a run's worker."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether a run's worker lives; a run with a process of its own has the code server."""
        if GRPC_INFO_TAG in run.tags:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            answer = self._ask({"ask": "status", "run_id": run.run_id})
        except PoolAwayError as error:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, str(error))
        except PoolSilentError as error:
            return CheckRunHealthResult(WorkerStatus.RUNNING, str(error), transient=True)
        return CheckRunHealthResult(_STATES[answer["state"]], answer["about"])

    def get_run_worker_debug_info(
        self,
        run: DagsterRun,
        include_container_logs: bool | None = True,  # noqa: ARG002, FBT001, FBT002 - Dagster's
    ) -> str | None:
        """What the pool says of a run."""
        if GRPC_INFO_TAG in run.tags:
            return None
        try:
            return str(self._ask({"ask": "status", "run_id": run.run_id})["about"])
        except (PoolAwayError, PoolSilentError) as error:
            return str(error)

    def _ask(self, message: Mapping[str, Any]) -> wire.Message:
        return wire.ask(self._folder, message, timeout_s=_TIMEOUT_S)
