"""Upkeep of the log beside the commits: compaction, retention, and files that have had their time.

It works in a thread of its own, at low priority. What it changes of the manifest it hands to the
thread that commits, one change at a time, and waits until it is listed.
"""

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from buffer_service.log import compact, manifest, retention
from buffer_service.log.capture import read_only
from buffer_service.log.manifest import Change, Loss, Removal, Replacement, Trim
from buffer_service.log.retention import Limits, Verdict
from buffer_service.log.segment_file import Steps, no_step
from iiot_platform.config.plant import BufferSettings
from iiot_platform.core.clock import now_us
from iiot_platform.core.consumption import read_consumption
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home

logger = logging.getLogger(__name__)

_REST_S: Final = 10.0
"""How long it sleeps where there is nothing to do."""
_PAUSE_S: Final = 0.02
"""Sleep after every portion, so that commits never wait long."""
_RETENTION_S: Final = 60.0
_STOP_S: Final = 4.0
_NICE: Final = 10
_US: Final = 1_000_000
_AT_ONCE: Final = 1_000
"""Files that are deleted before the manifest is told."""


class _StoppingError(Exception):
    """The buffer stops; what is under way is begun anew at the next start."""


@dataclass
class UpkeepReport:
    """What was done since the start; sizes in bytes."""

    compactions: int = 0
    segments_compacted: int = 0
    trimmed_segments: int = 0
    trimmed_records: int = 0
    trimmed_bytes: int = 0
    deleted_files: int = 0
    damaged: list[str] = field(default_factory=list)
    retention: str = ""
    """Why raw records stay that should go."""
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """As values for the status file."""
        return dict(vars(self))


class Upkeep:
    """Looks after the log of one home.

    Args:
        home: whose log it is.
        settings: say when and how much.
        bytes_wanted: bytes that must be freed now, because the disk is full.
        steps: told each step that a crash may follow.
        clock: Unix microseconds.
        rest_s: how long it sleeps where there is nothing to do.
    """

    def __init__(
        self,
        home: Home,
        settings: BufferSettings,
        *,
        bytes_wanted: Callable[[], int] = lambda: 0,
        steps: Steps = no_step,
        clock: Callable[[], int] = now_us,
        rest_s: float = _REST_S,
    ) -> None:
        self._home = home
        self._settings = settings
        self._bytes_wanted = bytes_wanted
        self._steps = steps
        self._clock = clock
        self._rest_s = rest_s
        self._stopping = threading.Event()
        self._listed = threading.Event()
        self._pending: tuple[Change, ...] = ()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        self._retain_at_us = 0
        self._in_need = False
        self.report = UpkeepReport()

    def start(self) -> None:
        """Begin to look after the log."""
        self._thread.start()

    def stop(self) -> None:
        """End soon; what is under way is left to the next start."""
        self._stopping.set()
        self._listed.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    @property
    def pending(self) -> tuple[Change, ...]:
        """What the next commit has to list."""
        return self._pending

    def listed(self) -> None:
        """What was pending is durable in the manifest."""
        for change in self._pending:
            self._count(change)
        self._pending = ()
        self._listed.set()

    def next_change(self) -> Change | None:
        """Does the next piece of work there is; None where there is none.

        Raises:
            OSError, sqlite3.Error, StorageError: it can not be done now.
        """
        with contextlib.closing(read_only(self._home)) as db:
            found = self._removal(db) or self._trim(db)
            if found is not None:
                return found
            group = compact.due(
                db,
                now_us=self._clock(),
                after_us=int(self._settings.compact_after_s * _US),
                max_rows=self._settings.compact_rows,
            )
            if not group:
                return None
            before = compact.chain_before(db, group[0].stream, group[0].lo)
        return compact.compact(
            self._home.capture,
            group,
            before=before,
            now_us=self._clock(),
            steps=self._steps,
            pause=self._pause,
        )

    def _run(self) -> None:
        # only a thread of Linux has a priority of its own
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._stopping.is_set():
            change = None
            try:
                change = self.next_change()
                self.report.error = ""
            except _StoppingError:
                return
            except (OSError, sqlite3.Error, StorageError, pa.ArrowException) as error:
                if not self.report.error:
                    logger.error("the log can not be looked after: %s", error)  # noqa: TRY400 - the message says it all
                self.report.error = str(error)
            if change is None:
                self._stopping.wait(self._rest_s)
                continue
            self._listed.clear()
            self._pending = (change,)
            self._listed.wait()
            self._stopping.wait(_PAUSE_S)

    def _pause(self) -> None:
        if self._stopping.wait(_PAUSE_S):
            raise _StoppingError

    def _removal(self, db: sqlite3.Connection) -> Removal | None:
        """Deletes files that no segment names, after the grace; the manifest is told then."""
        grace_us = 0 if self._in_need else int(self._settings.unlink_grace_s * _US)
        before = self._clock() - grace_us
        gone = [path for path, since in manifest.unlisted(db).items() if since <= before]
        if not gone:
            return None
        gone = gone[:_AT_ONCE]
        for path in gone:
            _unlink(self._home.capture, path)
            self._steps("unlink.one")
        self._steps("unlink.all")
        return Removal(tuple(gone))

    def _trim(self, db: sqlite3.Connection) -> Trim | None:
        settings, now = self._settings, self._clock()
        wanted = self._bytes_wanted() if settings.disk_trim else 0
        self._in_need = wanted > 0
        asked = settings.keep_raw_s is not None or settings.keep_raw_bytes is not None
        if not wanted and not (asked and now >= self._retain_at_us):
            return None
        consumed, problem = read_consumption(self._home)
        verdict = retention.judge(
            db,
            consumed,
            Limits(
                None if settings.keep_raw_s is None else now - int(settings.keep_raw_s * _US),
                settings.keep_raw_bytes,
                wanted,
            ),
        )
        self._tell(verdict, problem)
        if not verdict.trims:
            self._retain_at_us = now + int(_RETENTION_S * _US)
            return None
        return verdict.trims[0]

    def _tell(self, verdict: Verdict, problem: str) -> None:
        message = ""
        if verdict.held:
            why = problem or "the platform has not computed or settled what they hold"
            message = f"{verdict.held:,} bytes of raw records are due to go and stay: {why}"
        if message and not self.report.retention:
            logger.warning("%s", message)
        self.report.retention = message

    def _count(self, change: Change) -> None:
        report = self.report
        match change:
            case Replacement(old, _) if len(old) > 1:
                report.compactions += 1
                report.segments_compacted += len(old)
            case Trim(segments):
                report.trimmed_segments += len(segments)
                report.trimmed_records += sum(segment.rows for segment in segments)
                report.trimmed_bytes += sum(segment.bytes for segment in segments)
                logger.info(
                    "raw records of '%s' up to offset %d are deleted (%s)",
                    segments[-1].stream,
                    segments[-1].hi,
                    "the disk is full" if self._in_need else "retention",
                )
            case Removal(paths):
                report.deleted_files += len(paths)
            case Loss(segment, path, reason):
                report.damaged.append(f"{segment.path}: {reason}; now {path}")


def _unlink(capture: Path, relative: str) -> None:
    """Delete a file, and the folders that are empty then."""
    path = capture / relative
    path.unlink(missing_ok=True)
    for folder in path.parents:
        if folder == capture:
            return
        try:
            folder.rmdir()
        except OSError:
            return


def run_all(upkeep: Upkeep, listed: Callable[[Sequence[Change]], None]) -> int:
    """Does everything that is due, without a thread; returns how many changes there were."""
    done = 0
    while (change := upkeep.next_change()) is not None:
        listed((change,))
        done += 1
    return done
