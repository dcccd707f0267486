"""What Dagster's own storage says: runs of the last hour, and which daemons live."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Final

from iiot_platform.core.paths import Home

if TYPE_CHECKING:
    from dagster import DagsterInstance

logger = logging.getLogger(__name__)

AWAY_S: Final = 120.0
"""A daemon says every 30 s that it lives; after so long it does not."""
_EVERY_S: Final = 10.0
_RUNS_OF: Final = timedelta(hours=1)


@dataclass(frozen=True)
class DagsterState:
    """Dagster in figures.

    Attributes:
        problem: why there are none; empty where the storage answers.
        runs: runs that have changed within the last hour, by status.
        heartbeats: when each daemon that is needed last said that it lives, in Unix seconds.
    """

    problem: str = ""
    runs: Mapping[str, int] = field(default_factory=dict)
    heartbeats: Mapping[str, float] = field(default_factory=dict)


class DagsterReader:
    """Reads the storage of a home's instance, every ten seconds at most.

    Args:
        home: has the instance.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._open = ExitStack()
        self._instance: DagsterInstance | None = None
        self._due = 0.0
        self._state = DagsterState()

    @property
    def expected(self) -> bool:
        """True where Dagster was set up in the home."""
        return (self._home.dagster / "dagster.yaml").exists()

    def close(self) -> None:
        """Closes the storage."""
        self._open.close()

    def read(self) -> DagsterState:
        """The state of the last ten seconds."""
        if monotonic() >= self._due:
            try:
                self._state = self._read()
            except Exception as error:  # another's storage: whatever it raises, it can not be read
                logger.debug("Dagster's storage can not be read", exc_info=True)
                self._state = DagsterState(f"its storage can not be read: {error}")
            self._due = monotonic() + _EVERY_S
        return self._state

    def _read(self) -> DagsterState:
        # a second of CPU that a home without Dagster need not spend
        from dagster import DagsterRunStatus, RunsFilter  # noqa: PLC0415 - as said

        from iiot_platform.orchestration.access import opened  # noqa: PLC0415 - likewise

        if self._instance is None:
            self._instance = self._open.enter_context(opened(self._home))
        since = datetime.now(UTC) - _RUNS_OF
        runs = {
            # by the time of the last change, which is what the storage has an index for
            status.value.lower(): self._instance.get_runs_count(
                RunsFilter(statuses=[status], updated_after=since)
            )
            for status in DagsterRunStatus
        }
        wanted = self._instance.get_required_daemon_types()
        heartbeats = self._instance.run_storage.get_daemon_heartbeats()
        # a daemon that an earlier configuration had leaves its last heartbeat behind
        lives = {n: found.timestamp for n, found in heartbeats.items() if n in wanted}
        return DagsterState(runs=runs, heartbeats=lives)
