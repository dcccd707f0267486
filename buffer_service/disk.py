"""How full the disk is, and what follows: a warning in time, and a stop before it is full."""

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0
_RESUME: Final = 1.1
"""Free space over the mark, as a factor, at which an alarm ends: it must not flicker."""
_AGAIN_S: Final = 3_600.0
Level = Literal["ok", "low", "full"]
_RANK: Final[dict[Level, int]] = {"ok": 0, "low": 1, "full": 2}


class Space(NamedTuple):
    """Bytes of a file system."""

    total: int
    free: int


def space_of(folder: Path) -> Space:
    """The space of the file system that holds a folder.

    Raises:
        OSError: the folder can not be looked at.
    """
    found = shutil.disk_usage(folder)
    return Space(found.total, found.free)


class DiskGuard:
    """Watches the disk of the capture folder.

    Args:
        folder: the capture folder.
        warn_free: free space below which it warns; below 1 a share of the disk, else bytes.
        stop_free: free space below which nothing more is taken, likewise.
        space: looks at the disk.
    """

    def __init__(
        self,
        folder: Path,
        *,
        warn_free: float,
        stop_free: float,
        space: Callable[[Path], Space] = space_of,
    ) -> None:
        self._folder = folder
        self._marks = (stop_free, warn_free)
        self._space = space
        self._look_at = 0.0
        self._told_at = 0.0
        self._last = Space(0, 0)
        self.level: Level = "ok"
        self.message = ""

    @property
    def full(self) -> bool:
        """True where nothing more may be taken; looks at the disk once a second at most."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            self._look(now)
        return self.level == "full"

    @property
    def wanted(self) -> int:
        """Bytes that must be freed before anything is taken again; 0 where it is not full.

        Looks at the disk: files may have gone since.
        """
        self._look(time.monotonic())
        if self.level != "full":
            return 0
        return max(0, int(self._bytes(self._marks[0]) * _RESUME) - self._last.free + 1)

    def report(self) -> dict[str, Any]:
        """As values for the status file."""
        return {
            "level": self.level,
            "free": self._last.free,
            "total": self._last.total,
            "message": self.message,
        }

    def _bytes(self, mark: float) -> float:
        return mark * self._last.total if mark < 1 else mark

    def _look(self, now: float) -> None:
        try:
            self._last = self._space(self._folder)
        except OSError as error:
            logger.warning("%s: its disk can not be looked at: %s", self._folder, error)
            return
        before, self.level = self.level, self._judged()
        stop, warn = (self._bytes(mark) for mark in self._marks)
        free = f"{self._last.free / 1e9:.2f} GB of {self._last.total / 1e9:.2f} GB are free"
        place = f"the disk of {self._folder}"
        if self.level == "ok":
            self.message = ""
            if before != "ok":
                logger.info("%s has room again: %s", place, free)
            return
        if self.level == "low":
            self.message = (
                f"{place} is getting full: {free}, below {warn / 1e9:.2f} GB; at"
                f" {stop / 1e9:.2f} GB nothing more is taken. Free space, or let the buffer delete"
                " what was computed with buffer.keep_raw_s or buffer.keep_raw_bytes"
            )
        else:
            self.message = (
                f"{place} is full but for the reserve: {free}, below {stop / 1e9:.2f} GB. Nothing"
                " is taken or acknowledged until there is room: brokers keep their messages as"
                " long as their own limits allow. Free space, or set buffer.disk_trim"
            )
        if before != self.level or now >= self._told_at + _AGAIN_S:
            self._told_at = now
            logger.log(
                logging.ERROR if self.level == "full" else logging.WARNING, "%s", self.message
            )

    def _judged(self) -> Level:
        """The level now; one that was reached is left a little later than it was entered."""
        levels: tuple[Level, Level] = ("full", "low")
        for level, mark in zip(levels, map(self._bytes, self._marks), strict=True):
            reached = _RANK[self.level] >= _RANK[level]
            if self._last.free < (mark * _RESUME if reached else mark):
                return level
        return "ok"
