"""What the pool of workers says of itself."""

from dataclasses import dataclass
from typing import Final

from iiot_platform.core.paths import Home
from iiot_platform.orchestration.pool import wire

_TIMEOUT_S: Final = 2.0
_MB: Final = 2**20


@dataclass(frozen=True)
class PoolState:
    """The pool in figures.

    Attributes:
        problem: why it gives none; empty where it answers.
        workers: processes that execute runs.
        running: runs that they execute now.
        waiting: runs that wait for a worker.
        memory_bytes: resident memory of the workers after their last runs.
    """

    problem: str = ""
    workers: int = 0
    running: int = 0
    waiting: int = 0
    memory_bytes: int = 0


def read_pool(home: Home) -> PoolState:
    """Ask the pool of a home."""
    try:
        report = wire.ask(home.dagster, {"ask": "report"}, timeout_s=_TIMEOUT_S)
    except (wire.PoolAwayError, wire.PoolSilentError) as error:
        return PoolState(str(error))
    crews = report["crews"]
    workers = [worker for crew in crews for worker in crew["workers"]]
    errors = [crew["error"] for crew in crews if crew["error"] is not None and not crew["retired"]]
    return PoolState(
        problem=f"the definitions can not be loaded: {errors[-1]}" if errors else "",
        workers=len(workers),
        running=sum(worker["run_id"] is not None for worker in workers),
        waiting=report["waiting"],
        memory_bytes=round(sum(worker["rss_mb"] for worker in workers) * _MB),
    )
