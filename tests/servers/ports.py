"""Ports that stay free until a test's server takes them, also while it is away."""

import contextlib
import random
import socket
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
_LOWEST: Final = 15_000
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_choose: Final = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on and that no client is given.

    One of those that the kernel gives to clients may be taken by any connection before the server
    listens. A client that tries again and again can even meet itself there.
    """
    highest = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 32_768
    while True:
        port = _choose.randrange(_LOWEST, max(highest, 2 * _LOWEST))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
