"""The capture service: drains sources, commits on time, acknowledges, seals."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self

from buffer_service.disk import DiskGuard
from buffer_service.log import seal
from buffer_service.log.batch import Batch
from buffer_service.log.capture import CaptureLog
from buffer_service.log.manifest import Change, Loss, Segment
from buffer_service.log.segment_file import Steps, no_step
from buffer_service.log.upkeep import Upkeep
from buffer_service.roster import Roster
from buffer_service.sources.backoff import Backoff
from buffer_service.status import Statistics, write_status
from iiot_platform.config.plant import Plant
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home

if TYPE_CHECKING:
    from buffer_service.delivery import Source

logger = logging.getLogger(__name__)

STATUS_INTERVAL_S: Final = 2.0
_LONGEST_RETRY_S: Final = 5.0
_THREAD_STOP_S: Final = 4.0


class CaptureService:
    """Captures the lines of a plant into a home; start and stop it, or use it in `with`.

    Args:
        home: where the capture log lies.
        plant: sources and lines.
        steps: told each step that a crash may follow; for tests.
        turned: called at each turn of the commit loop.

    Raises:
        StorageError: the log can not be opened, or another process writes it.
    """

    def __init__(
        self,
        home: Home,
        plant: Plant,
        *,
        steps: Steps = no_step,
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        self._home = home
        self._settings = plant.buffer
        self._steps = steps
        self._turned = turned
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._log = CaptureLog(
            home,
            segment_rows=plant.buffer.seal_rows,
            names=plant.line_names,
            steps=steps,
        )
        self._disk = DiskGuard(
            home.capture,
            warn_free=plant.buffer.disk_warn_free,
            stop_free=plant.buffer.disk_stop_free,
        )
        self._upkeep = Upkeep(
            home, plant.buffer, bytes_wanted=lambda: self._disk.wanted, steps=steps
        )
        self._roster = Roster(home, plant, self._wake)
        self._changed: Plant | None = None
        self._statistics = Statistics(
            self._log.next_offsets, plant.line_names, [source.name for source in plant.sources]
        )
        self._statistics.missing_files = self._log.missing_files
        self._statistics.rebuilt = self._log.rebuilt
        self._statistics.disk = self._disk.report
        self._statistics.upkeep = self._upkeep.report.as_json
        self._upkeep.report.damaged += self._log.damaged
        self._batch = self._log.new_batch()
        self._sealer = ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._sealing: Future[tuple[list[Segment], float]] | None = None
        self._sealed: list[Segment] = []
        self._seal_at = 0.0
        self._turned_at = time.monotonic()
        self._retry = Backoff(first_s=self._settings.commit_interval_s, cap_s=_LONGEST_RETRY_S)
        self._thread = threading.Thread(target=self._run, name="commit")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Connect the sources and begin to commit."""
        seal.warm()
        self._thread.start()
        self._upkeep.start()
        for source in self._roster.sources:
            source.start()

    def stop(self) -> None:
        """Commit and acknowledge what has come, disconnect, seal, close; within five seconds."""
        self._stopping.set()
        self._wake.set()
        self._upkeep.stop()
        if self._thread.is_alive():
            self._thread.join(_THREAD_STOP_S)
        self._sealer.shutdown()
        self._log.close()

    def wait(self, timeout_s: float) -> bool:
        """True once the service has ended by itself, which only a bug makes it do."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def counts(self) -> Statistics:
        """What was counted until now, to be read alone."""
        return self._statistics

    @property
    def sources(self) -> "Sequence[Source]":
        """Where messages come from."""
        return self._roster.sources

    @property
    def plant(self) -> Plant:
        """The plant that is captured now."""
        return self._roster.plant

    def follow(self, plant: Plant) -> None:
        """Take up a changed plant within a commit or two, without a restart; from any thread.

        Lines that stay are not interrupted, unless the settings of their source have changed.
        How the buffer commits and seals changes with a restart alone.
        """
        if plant.buffer != self._settings:
            logger.warning("the settings below 'buffer' take effect when the buffer is restarted")
        self._changed = plant
        self._wake.set()

    def stopped_turning_s(self) -> float | None:
        """Seconds since the commit loop's last turn; None where its thread does not live."""
        return time.monotonic() - self._turned_at if self._thread.is_alive() else None

    def statistics(self) -> dict[str, Any]:
        """What the status file holds, as of now."""
        return self._statistics.report(self._roster.sources)

    def _run(self) -> None:
        interval_s = self._settings.commit_interval_s
        status_at = 0.0
        wait_s = interval_s
        self._seal_at = time.monotonic() + self._settings.seal_interval_s
        while not self._stopping.is_set():
            self._wake.wait(wait_s)
            self._wake.clear()
            self._turned_at = time.monotonic()
            self._turned()
            wait_s = interval_s if self._commit() and self._follow() else self._pause()
            self._seal_when_due()
            if time.monotonic() >= status_at:
                self._write_status()
                status_at = time.monotonic() + STATUS_INTERVAL_S
        self._finish()

    def _follow(self) -> bool:
        """Take up a plant that has changed; False: the disk refuses, and it is tried again."""
        plant = self._changed
        if plant is None:
            return True
        # What they have handed over is durable, and acknowledged to them, before others come.
        if self._roster.release(plant) and not self._commit():
            return False
        self._statistics.adopt(
            self._log.next_offsets, plant.line_names, [source.name for source in plant.sources]
        )
        self._roster.follow(plant)
        if self._changed is plant:
            self._changed = None
        logger.info("the plant has changed: capturing %s", ", ".join(plant.line_names))
        return True

    def _pause(self) -> float:
        """Wait after a failed commit, undisturbed by sources that press for one."""
        self._stopping.wait(self._retry.next_s())
        return 0.0

    def _commit(self) -> bool:
        """One transaction, then the acknowledgements; False keeps the batch for another try."""
        batch = self._batch
        for source in self._roster.sources:
            events = source.drain()
            batch.add(source.name, events)
            self._statistics.received[source.name] += len(events)
            self._statistics.held[source.name] = batch.waiting(source.name)
        sealed, changes = self._collect_sealed(), self._upkeep.pending
        if self._disk.full:
            return self._hold(sealed, changes)
        if not batch and not sealed and not changes:
            return True
        began = time.monotonic()
        if not self._written(batch, sealed, changes):
            return False
        self._statistics.commits.add(time.monotonic() - began)
        if self._statistics.storage_error:
            logger.info("committing again after %d failed attempts", self._retry.attempts)
            self._statistics.storage_error = ""
            self._retry.reset()
        if batch.started:
            # Nothing of a new session comes before a restart would know of it.
            self._write_status()
        tokens = batch.tokens()
        for source in self._roster.sources:
            source.acknowledge(tokens.get(source.name, ()))
            self._statistics.held[source.name] = 0
        self._steps("commit.acknowledged")
        self._count(batch.records, batch.dropped)
        self._batch = self._log.new_batch()
        return True

    def _written(self, batch: Batch, sealed: Sequence[Segment], changes: Sequence[Change]) -> bool:
        """True where a transaction is durable; False, and said once, where the disk refuses."""
        try:
            self._log.commit(batch, sealed, changes)
        except StorageError as error:
            if not self._statistics.storage_error:
                logger.error("%s", error)  # noqa: TRY400 - the message says it all
            self._statistics.storage_error = str(error)
            self._statistics.storage_failures["commit"] += 1
            return False
        self._statistics.segments += len(sealed)
        self._sealed = []
        if changes:
            self._upkeep.listed()
        for change in changes:
            if isinstance(change, Loss) and change.segment.stream in self._statistics.lines:
                # the gap that stands in the log for it
                self._statistics.lines[change.segment.stream].captured += 1
        return True

    def _hold(self, sealed: Sequence[Segment], changes: Sequence[Change]) -> bool:
        """Takes nothing, since the disk is all but full; what frees it goes on."""
        self._statistics.storage_error = self._disk.message
        if sealed or changes:
            self._written(self._log.new_batch(), sealed, changes)
        return False

    def _count(self, records: Any, dropped: Any) -> None:
        lines = self._statistics.lines
        for stream, taken in records.items():
            if taken and stream in lines:  # else the line has just left the plant
                lines[stream].took(taken)
        for stream, count in dropped.items():
            if stream in lines:
                lines[stream].dropped += count
        self._statistics.hot_rows = self._log.hot_rows

    def _seal_when_due(self) -> None:
        if self._sealing is not None or self._sealed or not self._log.hot_rows:
            return
        now = time.monotonic()
        if now >= self._seal_at or self._log.hot_rows >= self._settings.seal_rows:
            self._seal_at = now + self._settings.seal_interval_s
            self._sealing = self._sealer.submit(self._seal)

    def _seal(self) -> tuple[list[Segment], float]:
        began = time.monotonic()
        return self._log.seal(), time.monotonic() - began

    def _collect_sealed(self) -> list[Segment]:
        """Segments that are written but not listed yet."""
        if self._sealing is None or not self._sealing.done():
            return self._sealed
        future, self._sealing = self._sealing, None
        try:
            self._sealed, seconds = future.result()
        except StorageError as error:
            if not self._statistics.seal_error:
                logger.error("%s", error)  # noqa: TRY400 - the message says it all
            self._statistics.seal_error = str(error)
            self._statistics.storage_failures["seal"] += 1
            self._seal_at = time.monotonic() + _LONGEST_RETRY_S
            return []
        self._statistics.seals.add(seconds)
        if self._statistics.seal_error:
            logger.info("sealing again")
            self._statistics.seal_error = ""
        return self._sealed

    def _finish(self) -> None:
        """The last commit, acknowledged; then the last seal."""
        self._commit()
        for source in self._roster.sources:
            source.stop()
        self._sealer.shutdown()
        if self._commit() and self._log.hot_rows:
            self._sealing = Future()
            try:
                self._sealing.set_result(self._seal())
            except StorageError as error:
                self._sealing.set_exception(error)
            self._commit()
        self._write_status()

    def _write_status(self) -> None:
        write_status(self._home.capture, self.statistics())
