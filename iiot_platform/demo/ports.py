"""Ports of the demo: the usual ones where they are free, and the same again at the next start."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

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


def choose_ports(path: Path, preferred: Mapping[str, int] = USUAL) -> dict[str, int]:
    """A free port for each name; the choice is kept in a file for the next start."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    chosen: dict[str, int] = {}
    for name, usual in preferred.items():
        wanted = [port for port in (kept.get(name), usual) if isinstance(port, int)]
        free = [port for port in wanted if port not in chosen.values() and is_free(port)]
        chosen[name] = free[0] if free else any_free_port()
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
