"""A worker: executes one run after the other in a process that stays warm."""

import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
from functools import cache
from typing import Any, Final

from dagster import DagsterInstance, DagsterRun
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.storage.dagster_run import DagsterRunStatus
from dagster._grpc.impl import core_execute_run
from dagster._utils.interrupts import capture_interrupts

from iiot_platform.config.settings import Settings
from iiot_platform.orchestration.pool import parenthood, wire
from iiot_platform.orchestration.pool.lineup import Limits

logger = logging.getLogger("iiot_platform.pool.worker")

_IGNORED: Final = (signal.SIGTERM, signal.SIGINT)


@cache
def _repository() -> ReconstructableRepository:
    return ReconstructableRepository.for_module(
        Settings.from_environ(os.environ).definitions, "defs"
    )


def load_definitions() -> None:
    """Loads the code location with all its jobs, under the plant in force; opens nothing."""
    # as a run's own process would: an edited plant file counts once the location has taken it
    DefinitionsLoadContext.set(DefinitionsLoadContext(DefinitionsLoadType.RECONSTRUCTION))
    _repository().get_definition().load_all_definitions()


class Worker:
    """Executes runs of one instance.

    Args:
        instance: has the runs.
    """

    def __init__(self, instance: DagsterInstance) -> None:
        self._instance = instance

    def execute(self, run_id: str) -> bool:
        """Executes a run; False where it was interrupted and may have left things half done."""
        run = self._instance.get_run_by_id(run_id)
        if run is None:
            logger.error("run %s is not in the instance", run_id)
            return True
        if run.is_finished:
            return True
        job = _repository().get_reconstructable_job(run.job_name)
        try:
            with capture_interrupts():
                for _ in core_execute_run(job, run, self._instance, inject_env_vars=False):
                    pass
        except (KeyboardInterrupt, SystemExit):
            return False
        except BaseException as error:  # as in Dagster's own workers: it is in the run's log
            logger.exception("run %s", run_id)
            return isinstance(error, Exception)
        return True

    def fail(self, run_id: str, message: str) -> None:
        """Ends a run that nobody executes any more."""
        run: DagsterRun | None = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return
        if run.status == DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, message)
        else:
            self._instance.report_run_failed(run, message)


def work(line: socket.socket, limits: Limits) -> None:
    """Be a worker until it is replaced, or the service has gone."""
    parenthood.name("iiot-worker")
    gc.enable()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _quiet()
    runs = 0
    with DagsterInstance.get() as instance:
        worker = Worker(instance)
        while (order := wire.receive(line)) is not None:
            whole = _obey(worker, order)
            for number in _IGNORED:  # Dagster puts back what it found, if nothing came between
                signal.signal(number, signal.SIG_IGN)
            runs += order["order"] == "execute"
            rss_mb = parenthood.rss_mb()
            leaves = not whole or runs >= limits.runs_per_worker or rss_mb > limits.rss_mb
            done = {"run_id": order["run_id"], "leaves": leaves, "runs": runs, "rss_mb": rss_mb}
            line.send(wire.pack({"event": "done", **done}))
            if leaves:
                return


def _quiet() -> None:
    """Keeps the pool's log to what is about the pool.

    What a step prints goes to its own files, and Dagster prints every event between the steps.
    """
    errors = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
    faulthandler.enable(errors)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(errors)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _obey(worker: Worker, order: dict[str, Any]) -> bool:
    if order["order"] == "execute":
        return worker.execute(order["run_id"])
    worker.fail(order["run_id"], order["message"])
    return True
