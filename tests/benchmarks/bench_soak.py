"""Whether the platform runs for long without one failure: some lines, a run each every 5 s.

    python -m tests.benchmarks.bench_soak [--minutes 60] [--lines 2] [--json]

A real Dagster with daemon, code server, pool and web server. Live runs are kept for twenty minutes
only, so that the hourly deletion has work beside them. What counts: runs that failed, errors in
the servers' logs and, of these, locked databases; and that every row was computed in the end.
"""

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import yaml
from dagster import DagsterInstance, DagsterRunStatus

from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.orchestration import processes
from tests.servers import dagster as dagster_server
from tests.servers.capture_log import write_segments
from tests.servers.lines import signal_records

KEEP_LIVE_S: Final = 1_200
FEED_S: Final = 1.0
STEP_MS: Final = 100
DRAIN_S: Final = 60.0
_ERROR: Final = re.compile(r"error|traceback|exception|critical", re.IGNORECASE)
_LOCKED: Final = re.compile(r"database (table )?is locked|deadlock|could not serialize")
_SHOWN: Final = 20


def feed(home: Home, lines: Sequence[str], seconds: float) -> dict[str, list[int]]:
    """Ten rows a second and line, a segment every second; returns the times of the rows."""
    times: dict[str, list[int]] = {line: [] for line in lines}
    until = time.monotonic() + seconds
    told = now_ms()
    while time.monotonic() < until:
        time.sleep(FEED_S)
        rows = range(told, now_ms(), STEP_MS)
        for line in lines:
            write_segments(home, line, signal_records(line, rows))
            times[line] += rows
        told = rows[-1] + STEP_MS if rows else told
    return times


def percentiles(values: Sequence[float]) -> dict[str, float]:
    ranked = sorted(values)
    if not ranked:
        return {"p50_s": math.nan, "p95_s": math.nan, "max_s": math.nan}
    at = {"p50_s": 0.5, "p95_s": 0.95, "max_s": 1.0}
    return {
        name: round(ranked[min(len(ranked) - 1, int(share * len(ranked)))], 3)
        for name, share in at.items()
    }


def lags_s(engine: Engine, times: dict[str, list[int]]) -> list[float]:
    """From the time of every row to the commit of the batch that it is in."""
    found: list[float] = []
    for line, stamps in times.items():
        for batch in engine.ledger.batches(line, 1_000_000):
            if batch["kind"] == "live":
                found += [
                    (batch["committed_ms"] - ts) / 1_000 for ts in stamps[batch["lo"] : batch["hi"]]
                ]
    return found


def errors(folder: Path) -> dict[str, list[str]]:
    """Lines of the servers' logs that speak of an error."""
    return {
        path.stem: [
            line.strip()
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
            if _ERROR.search(line) or _LOCKED.search(line)
        ]
        for path in sorted(folder.glob("*.log"))
    }


def soak(minutes: float, count: int) -> dict[str, Any]:
    lines = [f"line_{number}" for number in range(1, count + 1)]
    plant = {"lines": lines, "batches": {"keep_live_runs_s": KEEP_LIVE_S}}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "plant.yaml").write_text(yaml.safe_dump(plant), encoding="utf-8")
        settings = Settings(home=Home(root / "var"), plant_path=root / "plant.yaml")
        settings.home.root.mkdir()
        with dagster_server.running(settings) as server:
            dagster_server.wait_for(
                lambda: processes.daemon_ready(server.port),
                "daemon",
                dagster_server.START_TIMEOUT_S,
            )
            return _measure(settings, lines, minutes)


def _measure(settings: Settings, lines: Sequence[str], minutes: float) -> dict[str, Any]:
    os.environ["DAGSTER_HOME"] = str(settings.home.dagster)
    plant = load_plant(settings.plant_path, os.environ)
    with closing(Engine(settings.home, plant)) as engine, DagsterInstance.get() as instance:
        times = feed(settings.home, lines, minutes * 60)
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline and any(
            engine.ledger.watermark(line) < len(times[line]) for line in lines
        ):
            time.sleep(0.5)
        records = instance.get_run_records()
        statuses = Counter(record.dagster_run.status.value for record in records)
        took = [
            record.end_time - record.create_timestamp.timestamp()
            for record in records
            if record.end_time and record.dagster_run.status == DagsterRunStatus.SUCCESS
        ]
        batches = {line: engine.ledger.counts(line).get("batches", 0) for line in lines}
        computed = {line: engine.ledger.watermark(line) for line in lines}
        lag = percentiles(lags_s(engine, times))
    found = errors(settings.home.logs)
    said = [line for log in found.values() for line in log]
    return {
        "minutes": minutes,
        "lines": len(lines),
        "rows": {line: len(stamps) for line, stamps in times.items()},
        "computed": computed,
        "batches": batches,
        "runs_kept": dict(statuses),
        "failures": statuses[DagsterRunStatus.FAILURE.value],
        "errors": {name: len(log) for name, log in found.items()},
        "locked": sum(1 for line in said if _LOCKED.search(line)),
        "said": said[:_SHOWN],
        "request_to_success": percentiles(took),
        "source_to_table": lag,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--lines", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    arguments = parser.parse_args()
    figures = soak(arguments.minutes, arguments.lines)
    if arguments.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    for name, value in figures.items():
        sys.stdout.write(f"{name}: {value}\n")


if __name__ == "__main__":
    main()
