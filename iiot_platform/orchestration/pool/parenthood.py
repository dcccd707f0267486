"""Processes that end with the one that started them (Linux)."""

import ctypes
import os
import signal
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PAGE_MB: Final = os.sysconf("SC_PAGE_SIZE") / (1024 * 1024)


def end_with(parent: int) -> None:
    """Have this process killed when its parent dies; an orphan would go on computing."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it had died before
        os.kill(os.getpid(), signal.SIGKILL)


def name(text: str) -> None:
    """What tools call this process."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, text.encode()[:15], 0, 0, 0)


def threads() -> int:
    """How many threads this process has, those of libraries included."""
    return len(list(Path("/proc/self/task").iterdir()))


def rss_mb() -> float:
    """Resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_MB


def ending(status: int) -> str:
    """How a process ended, from what `waitpid` says of it."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"killed by signal {number} ({signal.Signals(number).name})"
    return f"ended with code {os.waitstatus_to_exitcode(status)}"
