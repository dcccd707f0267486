"""One look at everything, shared by whoever asks within a moment."""

import logging
import shutil
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, thread_time
from typing import Final

from iiot_platform.config.active_plant import active_path, plant_in_force
from iiot_platform.config.settings import Settings
from iiot_platform.core.errors import PlatformError
from iiot_platform.engine.batch_feed import BatchFeed
from iiot_platform.engine.status import PlantStatus, StatusReader
from iiot_platform.exporter.dagster_state import DagsterReader, DagsterState
from iiot_platform.exporter.pool_state import PoolState, read_pool
from iiot_platform.metrics.families import Distribution

logger = logging.getLogger(__name__)

FRESH_S: Final = 2.0
_BUSY_SHARE: Final = 0.05


@dataclass(frozen=True)
class Look:
    """What was seen at one moment.

    Attributes:
        status: log and ledger; None where they can not be read.
        problem: why they can not be read.
        ledger: True where there is a ledger, and it can be read.
        batches: seconds of the batches since the start, by line and kind.
        pool: the pool of workers; None where there is no Dagster.
        dagster: Dagster's storage; None where there is no Dagster.
        free_bytes: free space where the home lies.
        size_bytes: size of the file system where the home lies.
        seconds: how long the look took.
    """

    status: PlantStatus | None = None
    problem: str = ""
    ledger: bool = False
    batches: Mapping[tuple[str, str], Distribution] = field(default_factory=dict)
    pool: PoolState | None = None
    dagster: DagsterState | None = None
    free_bytes: int | None = None
    size_bytes: int | None = None
    seconds: float = 0.0


class PlatformWatch:
    """Looks when somebody asks, at most every two seconds, and 5% of a core's time at most.

    Args:
        settings: of the installation.
        environ: the environment that the plant file may name secrets of.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._lock = threading.Lock()
        self._since: float | None = None
        self._due = 0.0
        self._cost_s = 0.0
        self._look = Look()
        self._feed = BatchFeed()
        self._batches: dict[tuple[str, str], Distribution] = defaultdict(Distribution)
        self._dagster = DagsterReader(settings.home)
        self._reader: StatusReader | None = None
        self._plant_stamps: tuple[int | None, ...] = ()

    def close(self) -> None:
        """Closes ledger and storage."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
            self._dagster.close()

    def looking_s(self) -> float:
        """How long the look that is under way has taken; 0 where there is none."""
        since = self._since
        return 0.0 if since is None else monotonic() - since

    def look(self) -> Look:
        """What there was to see a moment ago."""
        with self._lock:
            if monotonic() >= self._due:
                self._since = began = monotonic()
                cpu_s = thread_time()
                try:
                    self._look = self._look_now(began)
                finally:
                    self._since = None
                cost_s, before_s = thread_time() - cpu_s, self._cost_s
                # the one that opens a ledger, and imports for it, costs a hundred times as much as
                # those behind it: it is no reason to show nothing new for half a minute
                self._due = began + max(FRESH_S, min(cost_s, before_s) / _BUSY_SHARE)
                self._cost_s = cost_s
            return self._look

    def _look_now(self, began: float) -> Look:
        home = self._settings.home
        status, problem, ledger = self._status()
        expected = self._dagster.expected
        try:
            space = shutil.disk_usage(home.root)
        except OSError:
            space = None
        return Look(
            status=status,
            problem=problem,
            ledger=ledger,
            batches=dict(self._batches),
            pool=read_pool(home) if expected else None,
            dagster=self._dagster.read() if expected else None,
            free_bytes=None if space is None else space.free,
            size_bytes=None if space is None else space.total,
            seconds=monotonic() - began,
        )

    def _status(self) -> tuple[PlantStatus | None, str, bool]:
        try:
            reader = self._current_reader()
            status = reader.read()
            if reader.ledger is None:
                self._feed.start()
                return status, "there is none yet; nothing was computed", False
            for batch in self._feed.read(reader.ledger):
                self._batches[batch.line, batch.kind].add(batch.seconds)
        except PlatformError as error:
            if str(error) != self._look.problem:
                logger.error("%s", error)  # noqa: TRY400 - the message says it all
            return None, str(error), False
        return status, "", True

    def _current_reader(self) -> StatusReader:
        """A reader that knows the lines and settings of now."""
        settings = self._settings
        stamps = (_stamp(settings.plant_path), _stamp(active_path(settings.home)))
        if self._reader is None or stamps != self._plant_stamps:
            known = any(stamp is not None for stamp in stamps)
            current = self._current_settings() if known else {}
            if self._reader is not None:
                self._reader.close()
            self._reader = StatusReader(settings.home, current, current=current)
            self._plant_stamps = stamps
        return self._reader

    def _current_settings(self) -> dict[str, str]:
        """Version of each line's settings in force; nothing where they can not be told here."""
        try:
            plant = plant_in_force(self._settings, self._environ)
        except PlatformError as error:
            logger.warning("which hours are outdated is not told: %s", error)
            return {}
        return {name: plant.line_settings(name).version for name in plant.line_names}


def _stamp(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
