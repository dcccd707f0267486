"""Ports of the demo: the usual ones where they are free, and the same again at the next start."""

import contextlib
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from iiot_platform.core.errors import ConfigError

HOST: Final = "127.0.0.1"
USUAL: Final[Mapping[str, int]] = {
    "mqtt": 1883,
    "opcua": 4840,
    "dagster": 3000,
    "dagster-code": 4266,
    "report": 8050,
    "buffer-metrics": 9470,
    "metrics": 9471,
}
_TRIES: Final = 100


class PortClaims:
    """Keeps ports from other demos of this machine; use it with `with`.

    A port is free until its server listens, seconds after it was chosen. The mark of a port is a
    socket without a file, which goes with its process however that ends.
    """

    def __init__(self) -> None:
        self._marks = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._marks.close()

    def take(self, port: int) -> bool:
        """Claims a port; False where it is another's, or somebody listens on it."""
        mark = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            mark.bind(f"\0iiot-demo-port-{port}")
            if is_free(port):
                self._marks.enter_context(mark)
                return True
        mark.close()
        return False

    def take_any(self) -> int:
        """Claims one that nobody listens on.

        Raises:
            ConfigError: there is none.
        """
        for _ in range(_TRIES):
            port = any_free_port()
            if self.take(port):
                return port
        raise ConfigError(f"no port of {HOST} is free")


def choose_ports(
    path: Path, claims: PortClaims, preferred: Mapping[str, int] = USUAL
) -> dict[str, int]:
    """A free port for each name, claimed; the choice is kept in a file for the next start.

    Raises:
        ConfigError: no port is free.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    chosen: dict[str, int] = {}
    for name, usual in preferred.items():
        wanted = [port for port in (kept.get(name), usual) if isinstance(port, int)]
        found = next((port for port in wanted if claims.take(port)), None)
        chosen[name] = claims.take_any() if found is None else found
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(chosen) + "\n", encoding="utf-8")
    return chosen


def is_free(port: int) -> bool:
    """True where this machine lets us listen on the port."""
    with socket.socket() as probe:
        # as servers do: a connection that has just ended keeps nobody away
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def any_free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """True where somebody listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0
