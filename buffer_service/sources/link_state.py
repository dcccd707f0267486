"""Whether a source is connected, since when and why not; every change is told once in the log."""

import logging
import time
from typing import Final, Literal

from iiot_platform.core.clock import MS_PER_S, now_ms

logger = logging.getLogger(__name__)

_REMIND_S: Final = 60.0

State = Literal["connected", "connecting", "disconnected"]


class LinkState:
    """The state of a connection that is tried for ever; safe to read from any thread.

    Args:
        where: what a line of the log begins with.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._now: tuple[State, str, int] = ("connecting", "", now_ms())
        self._last_reason = ""
        self._reminded_at = 0.0

    @property
    def now(self) -> tuple[State, str, int]:
        """State, reason, and since when (Unix ms)."""
        return self._now

    def set(self, state: State, reason: str = "") -> None:
        """It is so from now on."""
        self._now = (state, reason, now_ms())

    def repeats(self, reason: str) -> bool:
        """True where this was the reason of the last failure too."""
        return reason == self._last_reason

    def failed(self, reason: str, attempts: int) -> None:
        """An attempt has failed, or the connection is lost: told when new, and every minute."""
        state, _, since_ms = self._now
        now = time.monotonic()
        if state != "disconnected" or reason != self._last_reason:
            since_ms = since_ms if state == "disconnected" else now_ms()
            logger.warning("%s: %s; trying again for ever", self._where, reason)
            self._reminded_at = now
        elif now - self._reminded_at > _REMIND_S:
            away_s = (now_ms() - since_ms) / MS_PER_S
            logger.warning(
                "%s: still away after %.0f s, %d attempts: %s",
                self._where,
                away_s,
                attempts,
                reason,
            )
            self._reminded_at = now
        self._last_reason = reason
        self._now = ("disconnected", reason, since_ms)
