"""What a run costs: the warm pool beside a new process for every run, on a real Dagster.

    python -m tests.benchmarks.bench_runs [--json]

CPU seconds are those of code server, daemon, pool and workers together, from `/proc`; `added` is
without what the servers need when nothing happens. Latency is from the creation of a run to its
success. Data comes in faster than the sensor looks, which is every 5 s. Ratios compare machines
better than seconds do.
"""

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import yaml
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.orchestration import processes
from tests.servers import dagster as dagster_server
from tests.servers.capture_log import write_segments
from tests.servers.dagster import Dagster
from tests.servers.lines import signal_records

LINES: Final = [f"line_{number}" for number in range(1, 11)]
IDLE_S: Final = 10.0
MEASURED_S: Final = 20.0
DRAIN_S: Final = 15.0
FEED_S: Final = 1.0


def cpu_s(server: Dagster) -> float:
    """Of all processes but the web server, those that have ended included."""
    total = 0.0
    for root in server.started:
        parent = psutil.Process(root.pid)
        if "dagster_webserver" in parent.cmdline():
            continue
        for process in (parent, *parent.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


def percentile(values: Sequence[float], share: float) -> float:
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


@contextmanager
def servers(*, pool: bool) -> Iterator[tuple[Dagster, Settings]]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "plant.yaml").write_text(yaml.safe_dump({"lines": LINES}), encoding="utf-8")
        settings = Settings(home=Home(root / "var"), plant_path=root / "plant.yaml")
        settings.home.root.mkdir()
        write_segments(settings.home, LINES[0], signal_records(LINES[0], [now_ms()]))
        with dagster_server.running(settings, pool=() if pool else None) as server:
            dagster_server.wait_for(
                lambda: processes.daemon_ready(server.port),
                "daemon",
                dagster_server.START_TIMEOUT_S,
            )
            yield server, settings


def feed(settings: Settings, lines: Sequence[str], seconds: float) -> None:
    """Ten rows a second and line."""
    start = time.monotonic()
    told = now_ms()
    while time.monotonic() - start < seconds:
        time.sleep(FEED_S)
        now = now_ms()
        for line in lines:
            write_segments(settings.home, line, signal_records(line, range(told, now, 100)))
        told = now


def runs_since(instance: DagsterInstance, since_s: float) -> list[tuple[bool, float]]:
    """Runs that have ended: whether well, and the seconds they took from their creation."""
    return [
        (record.dagster_run.status == DagsterRunStatus.SUCCESS, record.end_time - created)
        for record in instance.get_run_records()
        if (created := record.create_timestamp.timestamp()) >= since_s and record.end_time
    ]


def measure(
    server: Dagster, settings: Settings, instance: DagsterInstance, lines: int, idle: float
) -> dict[str, Any]:
    since_s, before, began = time.time(), cpu_s(server), time.monotonic()
    feed(settings, LINES[:lines], MEASURED_S)
    deadline = time.monotonic() + DRAIN_S
    under_way = RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)
    while instance.get_runs_count(under_way) and time.monotonic() < deadline:
        time.sleep(0.2)
    seconds, cpu = time.monotonic() - began, cpu_s(server) - before
    found = runs_since(instance, since_s)
    good = [took for passed, took in found if passed]
    count = len(found) or math.nan
    return {
        "lines": lines,
        "runs": len(found),
        "failed": len(found) - len(good),
        "cpu_s_a_run": round(cpu / count, 3),
        "cpu_s_a_run_added": round((cpu - idle * seconds) / count, 3),
        "p50_s": round(percentile(good, 0.5), 2),
        "p95_s": round(percentile(good, 0.95), 2),
    }


def launcher(*, pool: bool) -> dict[str, Any]:
    with servers(pool=pool) as (server, settings):
        os.environ["DAGSTER_HOME"] = str(settings.home.dagster)
        with DagsterInstance.get() as instance:
            feed(settings, LINES[:1], 6)  # what is made once is made
            time.sleep(4)
            before = cpu_s(server)
            time.sleep(IDLE_S)
            idle = (cpu_s(server) - before) / IDLE_S
            measured = [measure(server, settings, instance, n, idle) for n in (1, len(LINES))]
    return {"idle_cores": round(idle, 3), "runs": measured}


def ratios(default: dict[str, Any], pool: dict[str, Any]) -> list[dict[str, Any]]:
    """How many times as much a new process takes."""
    names = ("cpu_s_a_run", "cpu_s_a_run_added", "p50_s", "p95_s")
    return [
        {"lines": was["lines"], **{name: round(was[name] / now[name], 1) for name in names}}
        for was, now in zip(default["runs"], pool["runs"], strict=True)
    ]


def bench() -> dict[str, Any]:
    pool = launcher(pool=True)
    default = launcher(pool=False)
    return {"pool": pool, "default": default, "default / pool": ratios(default, pool)}


def text(figures: dict[str, Any]) -> Iterator[str]:
    for name in ("pool", "default"):
        yield f"{name}: idle {figures[name]['idle_cores']:.3f} cores"
        for row in figures[name]["runs"]:
            yield "    " + ", ".join(f"{key} {value}" for key, value in row.items())
    yield "default / pool"
    for row in figures["default / pool"]:
        yield "    " + ", ".join(f"{key} {value}" for key, value in row.items())


def main() -> None:
    figures = bench()
    as_json = "--json" in sys.argv[1:]
    sys.stdout.write((json.dumps(figures) if as_json else "\n".join(text(figures))) + "\n")


if __name__ == "__main__":
    main()
