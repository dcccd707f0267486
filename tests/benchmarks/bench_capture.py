"""How fast the buffer captures at QoS 1 with each of its clients, beside one that only receives.

Run as `python -m tests.benchmarks.bench_capture [--json] [--messages N] [--rounds N]`. The load
waits at the broker in three sessions; the buffer with either client and `mosquitto_sub` then take
it one after the other, so that none is slowed by the publisher, in another order each round. With
two cores the broker has one and they the other. Medians over the rounds; ratios are made within a
round, since a machine's speed changes between them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from buffer_service.log import hot
from buffer_service.log.capture import read_only
from iiot_platform.core.paths import Home
from tests.servers.buffer import MQTT_CLIENT, MQTT_CLIENTS
from tests.servers.mosquitto import MosquittoServer, program

TIMEOUT_S = 60.0
PUBLISHED_AT_ONCE = 50_000
"""mosquitto_pub 2.0.11 loses messages when it holds more than there are packet ids (65,535)."""
TOPIC = "line1/press/temperature"
BASELINE = "mosquitto_sub"
PAYLOAD_BYTES = (100, 1_600)
BROKER_CPU, RECEIVER_CPU = 0, 1


class Result(NamedTuple):
    """What one client needed for the load."""

    client: str
    payload_bytes: int
    messages: int
    seconds: float
    cpu_us: float
    """CPU time of the client for one message, in µs."""

    @property
    def rate(self) -> float:
        """Messages per second, durable where the client stores them."""
        return self.messages / self.seconds


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench_capture", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    rows = [
        row
        for payload_bytes in PAYLOAD_BYTES
        for row in summary(
            [_round(n, options.messages, payload_bytes) for n in range(options.rounds)]
        )
    ]
    if options.json:
        sys.stdout.write(json.dumps({"results": rows}) + "\n")
        return 0
    table = Table(*rows[0])
    for row in rows:
        table.add_row(
            *[f"{value:,}" if isinstance(value, int) else f"{value}" for value in row.values()]
        )
    Console().print(table)
    return 0


def summary(rounds: Sequence[dict[str, Result]]) -> list[dict[str, str | int | float]]:
    """A row for each client: medians, and ratios of CPU time to others within a round."""

    def ratio(client: str, other: str, what: str = "cpu_us") -> float:
        each = (getattr(r[client], what) / getattr(r[other], what) for r in rounds)
        return round(statistics.median(each), 2)

    return [
        {
            "client": client,
            "payload_bytes": rounds[0][client].payload_bytes,
            "messages_per_s": round(statistics.median(r[client].rate for r in rounds)),
            "cpu_us": round(statistics.median(r[client].cpu_us for r in rounds), 1),
            "cpu_us_least": round(min(r[client].cpu_us for r in rounds), 1),
            "cpu_to_mosquitto_sub": ratio(client, BASELINE),
            "cpu_to_paho": ratio(client, "paho"),
            "rate_to_paho": ratio(client, "paho", "rate"),
        }
        for client in sorted(rounds[0])
    ]


def _round(number: int, messages: int, payload_bytes: int) -> dict[str, Result]:
    with tempfile.TemporaryDirectory() as folder, MosquittoServer(Path(folder) / "b") as server:
        if server.process is not None:
            _pin(server.process.pid, BROKER_CPU)
        results = measure(Path(folder), server, messages, payload_bytes, first=number)
        return {result.client: result for result in results}


def _pin(pid: int, cpu: int) -> None:
    if (os.cpu_count() or 1) > 1:
        psutil.Process(pid).cpu_affinity([cpu])


def measure(
    folder: Path, server: MosquittoServer, messages: int, payload_bytes: int, *, first: int = 0
) -> list[Result]:
    """The results of all clients, in the order in which they were measured."""
    for client in MQTT_CLIENTS:
        _end(_start_buffer(folder, client, server.port))  # opens its session at the broker
    receive = [program("mosquitto_sub"), "-p", str(server.port), "-t", "line1/#", "-q", "1"]
    receive += ["-i", "bench-sub", "-V", "5", "-c", "-x", "3600"]
    receive += ["-D", "connect", "receive-maximum", "4000"]
    subprocess.run([*receive, "-E"], check=True, timeout=TIMEOUT_S)
    _publish(server.port, messages, payload_bytes)
    names = [*MQTT_CLIENTS, BASELINE]
    results = []
    for client in (*names[first % 3 :], *names[: first % 3]):
        if client == BASELINE:
            seconds, cpu_us = _measure_sub(receive, messages)
        else:
            seconds, cpu_us = _measure_buffer(folder, client, server.port, messages)
        results.append(Result(client, payload_bytes, messages, seconds, cpu_us))
    return results


def _measure_buffer(folder: Path, client: str, port: int, messages: int) -> tuple[float, float]:
    """Seconds, and µs of CPU time a message."""
    home = folder / client
    process = _start_buffer(folder, client, port, from_zero=True)
    _pin(process.pid, RECEIVER_CPU)
    since = _status(home)["sources"]["mqtt"]["since_ms"] / 1_000
    cpu = psutil.Process(process.pid)
    try:
        idle_s, first = _cpu_s(cpu), _durable(home)
        deadline = time.monotonic() + TIMEOUT_S
        while (found := _durable(home)) < messages:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{found} of {messages} messages in {TIMEOUT_S} s")
            time.sleep(0.02)
        seconds = time.time() - since
    finally:
        before = os.times()
        _end(process)
    after = os.times()
    # up to the end of the process, so that all seals are in it
    used_s = sum(after[2:4]) - sum(before[2:4]) - idle_s
    return seconds, used_s / (messages - first) * 1e6


def _durable(home: Path) -> int:
    """Records that are committed, whether sealed or not."""
    with closing(read_only(Home(home))) as db:
        sealed = [hi for (hi,) in db.execute("SELECT max(hi) FROM segments")]
        return max(*(hi or 0 for hi in sealed), *hot.ends(db).values(), 0)


def _measure_sub(receive: list[str], messages: int) -> tuple[float, float]:
    began = time.monotonic()
    before = os.times()
    command = [*receive, "-C", str(messages)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _pin(process.pid, RECEIVER_CPU)
        if process.wait(TIMEOUT_S):
            raise RuntimeError(f"mosquitto_sub ended with {process.returncode}")
    after = os.times()
    seconds = time.monotonic() - began
    used_s = sum(after[2:4]) - sum(before[2:4])  # user and system time of children
    return seconds, used_s / messages * 1e6


def _publish(port: int, messages: int, payload_bytes: int) -> None:
    payload = (
        '{{"LineName":"line1","MachineName":"press","SensorName":"temperature",'
        '"SensorValue":21.5,"TimeStamp":{}}}'
    )
    command = [program("mosquitto_pub"), "-p", str(port), "-t", TOPIC, "-q", "1", "-l", "-V", "5"]
    for start in range(0, messages, PUBLISHED_AT_ONCE):
        count = min(PUBLISHED_AT_ONCE, messages - start)
        lines = "".join(
            f"{payload.format(1_700_000_000_000 + start + n):<{payload_bytes}}\n"
            for n in range(count)
        )
        subprocess.run(command, input=lines.encode(), check=True, timeout=TIMEOUT_S)


def _start_buffer(
    folder: Path, client: str, port: int, *, from_zero: bool = False
) -> subprocess.Popen[bytes]:
    """A buffer process that is connected; with `from_zero` right after it connected."""
    home, log = folder / client, folder / "buffer.log"
    environment = {MQTT_CLIENT: client, "SOURCE_SETTINGS": json.dumps({"client_id": client})}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.buffer", str(home), str(port), "line1"],
            stderr=stderr,
            env=os.environ | environment,
        )
    deadline = time.monotonic() + TIMEOUT_S
    while b"connected" not in log.read_bytes() or _status(home).get("pid") != process.pid:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(log.read_text())
        time.sleep(0.01 if from_zero else 0.1)
    return process


def _status(home: Path) -> dict:  # type: ignore[type-arg]  # as the file has it
    try:
        status: dict = json.loads((home / "capture" / "status.json").read_text())  # type: ignore[type-arg]
    except FileNotFoundError:
        return {}
    return status


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)


if __name__ == "__main__":
    sys.exit(main())
