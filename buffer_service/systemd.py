"""What systemd is told of the buffer: ready, alive, stopping (`sd_notify(3)`)."""

import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Final, Self

logger = logging.getLogger(__name__)

_BEATS: Final = 4
"""Signs of life within the time after which systemd takes the buffer for stuck."""


class Notifier:
    """Tells systemd, and nobody where there is none.

    Args:
        address: socket that systemd listens on; empty: there is none.
        every_s: time between two signs of life; None: systemd waits for none.
    """

    def __init__(self, address: str = "", every_s: float | None = None) -> None:
        # a leading @ stands for an address without a file
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._every_s = every_s if address else None
        self._beat_at = 0.0

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """As the unit says; what is meant for another process is none of ours."""
        every_s = None
        usec = environ.get("WATCHDOG_USEC", "")
        if usec.isdecimal() and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            every_s = int(usec) / 1e6 / _BEATS
        return cls(environ.get("NOTIFY_SOCKET", ""), every_s)

    def ready(self) -> None:
        """Messages are captured from now on, as soon as there are any."""
        self._tell(b"READY=1")

    def alive(self) -> None:
        """To be called again and again by what must not get stuck."""
        if self._every_s is None:
            return
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + self._every_s
            self._tell(b"WATCHDOG=1")

    def stopping(self) -> None:
        """What has come is committed, then it ends."""
        self._tell(b"STOPPING=1")

    def _tell(self, state: bytes) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            # who tells is the thread that commits: it waits for nobody
            sender.settimeout(0)
            try:
                sender.sendto(state, self._address)
            except OSError as error:
                logger.warning("systemd was not told %s: %s", state.decode(), error)
