"""CPU time of the buffer for one OPC UA value, its commit included.

Run as `python -m tests.benchmarks.bench_capture_opcua [--json] [--values N]`. The server is a
process of its own; what is measured is the process that captures.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from buffer_service.service import CaptureService
from iiot_platform.config.plant import Plant
from iiot_platform.core.paths import Home
from tests.servers.opcua import MOTOR, SIGNAL, OpcUaServer

TIMEOUT_S = 60.0
_AT_ONCE = 50
"""Values written in one tick of 10 ms at most."""


class Result(NamedTuple):
    """What one kind of value costs."""

    values: str
    security: str
    rate: float
    cpu_us: float
    """CPU time of the capturing process for one value, in µs; idle time taken off."""


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench_capture_opcua", description=__doc__)
    parser.add_argument("--values", type=int, default=5_000)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), options.values)
    if options.json:
        sys.stdout.write(json.dumps([result._asdict() for result in results]) + "\n")
        return 0
    table = Table("values", "security", "values/s", "CPU µs/value")
    for result in results:
        table.add_row(result.values, result.security, f"{result.rate:,.0f}", f"{result.cpu_us:.1f}")
    Console().print(table)
    return 0


def measure(folder: Path, values: int) -> list[Result]:
    """Scalars and structures, plain and encrypted."""
    results = []
    with OpcUaServer(folder / "server") as server:
        for security in ("none", "sign_and_encrypt"):
            plant = _plant(server.url, security)
            with CaptureService(Home(folder / security), plant) as service:
                _until(service, 4)
                for name, topic in (("scalar", SIGNAL), ("struct, 134 values", MOTOR)):
                    results.append(Result(name, security, *_cost(service, server, topic, values)))
    return results


def _cost(
    service: CaptureService, server: OpcUaServer, topic: str, values: int
) -> tuple[float, float]:
    before = _captured(service)
    idle_began, idle_cpu = time.monotonic(), time.process_time()
    time.sleep(1.0)  # what the service needs when nothing comes
    idle_share = (time.process_time() - idle_cpu) / (time.monotonic() - idle_began)
    began, cpu = time.monotonic(), time.process_time()
    server.send(f"flood {topic} {values} {_AT_ONCE}")
    _until(service, before + values)
    seconds = time.monotonic() - began
    used_s = time.process_time() - cpu - idle_share * seconds
    return values / seconds, used_s / values * 1e6


def _captured(service: CaptureService) -> int:
    count: int = service.statistics()["lines"]["line1"]["captured"]
    return count


def _until(service: CaptureService, count: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while _captured(service) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{_captured(service)} of {count} values in {TIMEOUT_S} s")
        time.sleep(0.1)


def _plant(url: str, security: str) -> Plant:
    source: dict[str, Any] = {
        "kind": "opcua",
        "url": url,
        "security": security,
        "sampling_interval_ms": 1,
        "nodes": [{"path": "Plant/line1/*/*"}],
    }
    return Plant.model_validate({"sources": [source], "lines": ["line1"]})


if __name__ == "__main__":
    sys.exit(main())
