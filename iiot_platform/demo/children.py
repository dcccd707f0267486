"""Processes of the demo: each with a log file and a process group, started again when it dies."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_STEADY_S: Final = 60.0
_POLL_S: Final = 0.05
_TAIL_LINES: Final = 3


@dataclass(frozen=True)
class Command:
    """One process to start; it ends with SIGTERM.

    Attributes:
        name: what it is, for people and its log file.
        argv: command line.
        environ: its whole environment.
        restarts: True where it is started again whenever it ends.
        nice: how far it stands back where others want the processor, 0 to 19.
    """

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    restarts: bool = True
    nice: int = 0


class Child:
    """One supervised process.

    Args:
        command: what to start.
        logs: folder of its log file, which begins anew.
        say: told what happens to it.
    """

    def __init__(self, command: Command, logs: Path, say: Callable[[str], None]) -> None:
        self.command = command
        self.log = logs / f"{command.name}.log"
        self.restarts = 0
        self._say = say
        self._pause_s = _FIRST_PAUSE_S
        self._retry_at: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._stopping = False
        logs.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self.running and self._process is not None else None

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs or before it starts."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the process; it is told to end when this one dies."""
        self._started = time.monotonic()
        self._retry_at = None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command lines
                self.command.argv,
                env=dict(self.command.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=_end_with_parent(),  # noqa: PLW1509 - this process has one thread
            )
        if self.command.nice:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(self._process.pid).nice(self.command.nice)

    def watch(self) -> None:
        """Start the process again where it has died, after a pause that grows."""
        if self.running or self._stopping or self._process is None or not self.command.restarts:
            return
        now = time.monotonic()
        if self._retry_at is None:
            if now - self._started > _STEADY_S:
                self._pause_s = _FIRST_PAUSE_S
            self._retry_at = now + self._pause_s
            self._say(
                f"{self.command.name} ended with code {self.returncode}; starting it again in"
                f" {self._pause_s:g} s. {self.last_words()}"
            )
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        elif now >= self._retry_at:
            self.restarts += 1
            self.start()

    def last_words(self) -> str:
        """Where its log is and how it ends."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"See {self.log}: …{' / '.join(lines[-_TAIL_LINES:])}" if lines else ""

    def terminate(self) -> None:
        """Ask it to end; it is not started again."""
        self._stopping = True
        if self._process is not None and self.running:
            self._process.terminate()

    def family(self) -> list[psutil.Process]:
        """The process and everything below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self.pid is not None:
                root = psutil.Process(self.pid)
                return [root, *root.children(recursive=True)]
        return []


def stop_together(children: Iterable[Child], deadline: float) -> None:
    """Ask some children to end and wait until they have, or until a monotonic time."""
    asked = list(children)
    for child in asked:
        child.terminate()
    while any(child.running for child in asked) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def adopt_orphans() -> None:
    """Make what our children leave behind ours, so that we can find and end it (Linux)."""
    if sys.platform == "linux":
        _prctl()(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(grace_s: float) -> int:
    """End every process below this one, kill what does not obey; returns how many were left."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=grace_s)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=grace_s)
    return len(left)


def _prctl() -> Callable[..., int]:
    function: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    return function


def _end_with_parent() -> Callable[[], None] | None:
    """What a new process does first: ask to be told when its parent has died (Linux)."""
    if sys.platform != "linux":
        return None
    prctl, parent = _prctl(), os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it had died before it was asked
            os.kill(os.getpid(), signal.SIGTERM)

    return ask
