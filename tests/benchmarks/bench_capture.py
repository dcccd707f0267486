"""How fast the buffer captures at QoS 1, beside a client that only receives.

Run as `python -m tests.benchmarks.bench_capture [--json] [--messages N]`. The load waits at the
broker in two sessions; the buffer and `mosquitto_sub` then take it one after the other, so that
neither is slowed by the publisher.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from tests.servers.mosquitto import MosquittoServer, program

TIMEOUT_S = 25.0
PUBLISHED_AT_ONCE = 50_000
"""mosquitto_pub 2.0.11 loses messages when it holds more than there are packet ids (65,535)."""
TOPIC = "line1/press/temperature"


class Result(NamedTuple):
    """What one client needed for the load."""

    client: str
    messages: int
    seconds: float
    cpu_us: float
    """CPU time of the client for one message, in µs."""

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench_capture", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, MosquittoServer(Path(folder) / "b") as server:
        results = measure(Path(folder), server, options.messages)
    buffer, baseline = results
    if options.json:
        rows = [{**result._asdict(), "rate": round(result.rate)} for result in results]
        ratio = buffer.cpu_us / baseline.cpu_us
        sys.stdout.write(json.dumps({"results": rows, "cpu_ratio": round(ratio, 2)}) + "\n")
        return 0
    table = Table("client", "messages", "seconds", "messages/s", "CPU µs/message", "CPU ratio")
    for result in results:
        table.add_row(
            result.client,
            f"{result.messages:,}",
            f"{result.seconds:.2f}",
            f"{result.rate:,.0f}",
            f"{result.cpu_us:.1f}",
            f"{result.cpu_us / baseline.cpu_us:.1f}",
        )
    Console().print(table)
    return 0


def measure(folder: Path, server: MosquittoServer, messages: int) -> list[Result]:
    """The buffer's result, then that of `mosquitto_sub`."""
    home = folder / "home"
    _end(_start_buffer(home, server.port))  # opens its session at the broker
    receive = [program("mosquitto_sub"), "-p", str(server.port), "-t", "line1/#", "-q", "1"]
    receive += ["-i", "bench-sub", "-V", "5", "-c", "-x", "3600"]
    receive += ["-D", "connect", "receive-maximum", "4000"]
    subprocess.run([*receive, "-E"], check=True, timeout=TIMEOUT_S)
    _publish(server.port, messages)
    return [_measure_buffer(home, server.port, messages), _measure_sub(receive, messages)]


def _measure_buffer(home: Path, port: int, messages: int) -> Result:
    process = _start_buffer(home, port, from_zero=True)
    started = _status(home)
    since = started["sources"]["mqtt"]["since_ms"] / 1_000
    cpu = psutil.Process(process.pid)
    try:
        idle_s = _cpu_s(cpu)
        first = started["lines"]["line1"]["captured"]
        deadline = time.monotonic() + TIMEOUT_S
        while (line := _status(home)["lines"]["line1"])["captured"] < messages:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{line['captured']} of {messages} messages in {TIMEOUT_S} s")
            time.sleep(0.05)
        used_s = _cpu_s(cpu) - idle_s
    finally:
        _end(process)
    seconds = line["last_received_ms"] / 1_000 - since
    return Result("buffer", messages, seconds, used_s / (messages - first) * 1e6)


def _measure_sub(receive: list[str], messages: int) -> Result:
    began = time.monotonic()
    before = os.times()
    command = [*receive, "-C", str(messages)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=TIMEOUT_S)
    after = os.times()
    seconds = time.monotonic() - began
    used_s = sum(after[2:4]) - sum(before[2:4])  # user and system time of children
    return Result("mosquitto_sub", messages, seconds, used_s / messages * 1e6)


def _publish(port: int, messages: int) -> None:
    payload = (
        '{{"LineName":"line1","MachineName":"press","SensorName":"temperature",'
        '"SensorValue":21.5,"TimeStamp":{}}}\n'
    )
    command = [program("mosquitto_pub"), "-p", str(port), "-t", TOPIC, "-q", "1", "-l", "-V", "5"]
    for start in range(0, messages, PUBLISHED_AT_ONCE):
        count = min(PUBLISHED_AT_ONCE, messages - start)
        lines = "".join(payload.format(1_700_000_000_000 + start + n) for n in range(count))
        subprocess.run(command, input=lines.encode(), check=True, timeout=TIMEOUT_S)


def _start_buffer(home: Path, port: int, *, from_zero: bool = False) -> subprocess.Popen[bytes]:
    """A buffer process that is connected; with `from_zero` right after it connected."""
    log = home.parent / "buffer.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.buffer", str(home), str(port), "line1"],
            stderr=stderr,
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
