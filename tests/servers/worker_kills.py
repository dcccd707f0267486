"""Kills workers of a real pool while they execute runs of a line, and remembers where it hit."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from iiot_platform.config.settings import Settings
from iiot_platform.core.errors import PlatformError
from iiot_platform.orchestration.pool import wire
from tests.servers import run_steps
from tests.servers.dagster import wait_for

BEFORE, BETWEEN, AFTER = "before the files", "between files and commit", "after the commit"
WINDOW_OF = {
    run_steps.BEGAN: BEFORE,
    run_steps.BEFORE_FILES: BEFORE,
    run_steps.WRITING: BETWEEN,
    run_steps.WRITTEN: BETWEEN,
    run_steps.COMMITTING: BETWEEN,
    run_steps.COMMITTED: AFTER,
}
KINDS = ("live", "rerun")
MOST_IN_A_ROW = 2
"""Kills of one job before a run of it is spared: the sensor asks ever more slowly for the same."""
FROM_BEGIN_S = 0.6
FROM_FILES_S = 0.15
DEATH_TIMEOUT_S = 60.0


class Kill(NamedTuple):
    """One kill; `step` is the last one that the run had come to."""

    run_id: str
    job: str
    step: str
    placed: bool


class _Plan(NamedTuple):
    """When a run is killed: so long after it began, or after its first file."""

    from_files: bool
    delay_s: float


@dataclass
class Killer:
    """Kills runs where traps hold them, and others at moments of their own.

    Args:
        settings: whose pool.
        folder: notes and traps of the workers.
        noise: chance.
    """

    settings: Settings
    folder: Path
    noise: random.Random
    kills: list[Kill] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._plans: dict[str, _Plan | None] = {}
        self._due: dict[str, float] = {}
        self._in_a_row: Counter[str] = Counter()

    def spring(self, kind: str, step: str) -> bool:
        """Kills the worker that a trap holds; False where it holds none yet."""
        pid = run_steps.caught(self.folder, kind, step)
        if pid is None:
            return False
        self.kill(pid, placed=True)
        return True

    def look(self) -> None:
        """Kills what is due."""
        now = time.monotonic()
        for pid, note in self._running():
            if note.run_id not in self._plans:
                self._plans[note.run_id] = self._plan(note.job)
            plan = self._plans[note.run_id]
            if plan is None or (plan.from_files and WINDOW_OF.get(note.step) == BEFORE):
                continue
            if now >= self._due.setdefault(note.run_id, now + plan.delay_s):
                self.kill(pid, placed=False)

    def kill(self, pid: int, *, placed: bool) -> None:
        """Kills a worker."""
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid), f"the end of worker {pid}", DEATH_TIMEOUT_S)
        self.count(pid, placed=placed)

    def count(self, pid: int, *, placed: bool) -> None:
        """Remembers where a worker was that has been killed, if it was in a run."""
        note = run_steps.note_of(self.folder, pid)
        if note is not None and note.step != run_steps.ENDED:
            self.kills.append(Kill(note.run_id, note.job, note.step, placed))
            self._in_a_row[note.job] += 1

    def _plan(self, job: str) -> _Plan | None:
        """None for a run that is spared."""
        if job.split("_", maxsplit=1)[0] not in KINDS:
            return None
        if self._in_a_row[job] >= MOST_IN_A_ROW:
            self._in_a_row[job] = 0
            return None
        from_files = self.noise.random() < 0.5
        return _Plan(
            from_files, self.noise.uniform(0, FROM_FILES_S if from_files else FROM_BEGIN_S)
        )

    def _running(self) -> Iterator[tuple[int, run_steps.Note]]:
        try:
            report = wire.ask(self.settings.home.dagster, {"ask": "report"}, timeout_s=10)
        except PlatformError:  # it is loading, or busy
            return
        for worker in (worker for crew in report["crews"] for worker in crew["workers"]):
            note = run_steps.note_of(self.folder, worker["pid"]) if worker["pid"] else None
            executes = note is not None and note.run_id == worker["run_id"]
            if note is not None and executes and note.step != run_steps.ENDED:
                yield worker["pid"], note


def alive(pid: int) -> bool:
    """False too where only its parent has not been told yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
