"""Where the workers of a real pool stand in their runs, and traps that hold them for a kill.

The nursery installs it where its `sitecustomize` asks for it (see `prepare`); its workers then
leave a note at every step, and wait for their end at a step that has a trap. The steps take a
little longer than they do otherwise, so that kills at random find them. Nothing of it is known
to the product.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from iiot_platform.orchestration.pool.worker import Worker
from tests.servers.engine_process import STEPS

FOLDER = "IIOT_TEST_RUN_STEPS"
"""Environment variable: where notes and traps are."""
BEGAN = "began"
ENDED = "ended"
BEFORE_FILES = "before any file"
WRITING = "some files written"
WRITTEN = "all files written"
COMMITTING = "within the transaction"
COMMITTED = "after the commit"
_NOTED = (BEFORE_FILES, WRITING, WRITTEN, COMMITTING, COMMITTED)
_WIDENED_S = 0.04
_HELD_S = 300.0


class Note(NamedTuple):
    """Where a worker stands."""

    run_id: str
    job: str
    step: str


def prepare(folder: Path) -> dict[str, str]:
    """What the environment of a pool needs for it."""
    site = folder / "site"
    site.mkdir(parents=True)
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        'if "--nursery" in sys.orig_argv:\n'
        "    from tests.servers.run_steps import install\n"
        "    install()\n",
        encoding="utf-8",
    )
    search = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {FOLDER: str(folder), "PYTHONPATH": ":".join(search)}


def set_trap(folder: Path, kind: str, step: str) -> None:
    """The next worker that comes to a step of a job of this kind stays there."""
    (folder / f"trap {kind} {step}").touch()


def caught(folder: Path, kind: str, step: str) -> int | None:
    """The worker that a trap holds."""
    found = next(folder.glob(f"caught {kind} {step} *"), None)
    if found is None:
        return None
    found.unlink()
    return int(found.name.rsplit(" ", 1)[1])


def note_of(folder: Path, pid: int) -> Note | None:
    """Where a worker stands, or stood when it died."""
    try:
        return Note(*(folder / str(pid)).read_text(encoding="utf-8").split("\n"))
    except FileNotFoundError:
        return None


class _Steps:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._note = Note("", "", ENDED)

    def begin(self, run_id: str, job: str) -> None:
        self._leave(Note(run_id, job, BEGAN))

    def reach(self, step: str) -> None:
        if self._note.step != step:
            self._leave(self._note._replace(step=step))
        if step in (WRITING, ENDED):
            return
        kind = self._note.job.split("_")[0]
        trap = self._folder / f"trap {kind} {step}"
        with contextlib.suppress(FileNotFoundError):
            trap.rename(self._folder / f"caught {kind} {step} {os.getpid()}")
            time.sleep(_HELD_S)
        time.sleep(_WIDENED_S)

    def _leave(self, note: Note) -> None:
        self._note = note
        path = self._folder / str(os.getpid())
        path.with_suffix(".new").write_text("\n".join(note), encoding="utf-8")
        path.with_suffix(".new").rename(path)


def install() -> None:
    """Makes the workers of this nursery tell where they are."""
    steps = _Steps(Path(os.environ[FOLDER]))
    for step in _NOTED:
        owner, name, after = STEPS[step]
        setattr(owner, name, _noted(getattr(owner, name), steps, step, after=after))
    execute = Worker.execute

    def followed(worker: Worker, run_id: str) -> bool:
        run = worker._instance.get_run_by_id(run_id)
        steps.begin(run_id, "" if run is None else run.job_name)
        try:
            return execute(worker, run_id)
        finally:
            steps.reach(ENDED)

    Worker.execute = followed  # type: ignore[method-assign] # the fault is injected here
    print(f"steps of runs are noted in {os.environ[FOLDER]}", file=sys.stderr)  # noqa: T201 - the pool's log


def _noted(function: Callable[..., Any], steps: _Steps, step: str, *, after: bool) -> Any:
    def reached(*args: Any, **kwargs: Any) -> Any:
        if not after:
            steps.reach(step)
        result = function(*args, **kwargs)
        if after:
            steps.reach(step)
        return result

    return reached
