"""What a run costs: a process for every run, the pool on SQLite and on PostgreSQL, real Dagsters.

    python -m tests.benchmarks.bench_runs [--seconds 30] [--lines 1 10 20] [--json]

CPU seconds are those of code server, daemon, pool, workers and database together, from `/proc`;
`added` is without what the servers need when nothing happens. `run` is from the creation of a run
to its success, `source` from the time of a row to the commit of the batch that it is in. Data
comes in faster than the sensor looks, which is every 5 s. Ratios compare machines better than
seconds do. The bytes are those of Dagster's storage for one more batch, before and after the
deletion of old runs.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
import yaml
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from iiot_platform.config.plant import BatchSettings
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.orchestration import processes
from iiot_platform.orchestration.instance import instance_environ
from iiot_platform.orchestration.retention import prune
from iiot_platform.orchestration.space import reclaim, space
from tests.servers import dagster as dagster_server
from tests.servers.capture_log import write_segments
from tests.servers.dagster import Dagster
from tests.servers.lines import signal_records
from tests.servers.postgres import PostgresServer, running_postgres

LINES: Final = [f"line_{number}" for number in range(1, 21)]
SATURATED: Final = 10
"""More lines than this a process for every run can not serve on two cores; it is not asked to."""
WARM_S: Final = 6.0
IDLE_S: Final = 10.0
DRAIN_S: Final = 15.0
FEED_S: Final = 1.0
STEP_MS: Final = 100


class Kind(NamedTuple):
    """What is compared."""

    name: str
    pool: bool
    postgres: bool


KINDS: Final = (
    Kind("process", pool=False, postgres=False),
    Kind("pool_sqlite", pool=True, postgres=False),
    Kind("pool_postgresql", pool=True, postgres=True),
)


class Started(NamedTuple):
    """A Dagster, its settings and the database behind it."""

    dagster: Dagster
    settings: Settings
    database: PostgresServer | None

    def cpu_s(self) -> float:
        """Of all processes but the web server, those that have ended included."""
        roots = [root.process.pid for root in self.dagster.started]
        if self.database is not None:
            roots.append(self.database.pid)
        total = 0.0
        for root in roots:
            parent = psutil.Process(root)
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
def servers(kind: Kind) -> Iterator[Started]:
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(running_postgres()) if kind.postgres else None
        (root / "plant.yaml").write_text(yaml.safe_dump({"lines": LINES}), encoding="utf-8")
        home = Home(root / "var", None if database is None else database.database())
        settings = Settings(home=home, plant_path=root / "plant.yaml")
        home.root.mkdir()
        write_segments(home, LINES[0], signal_records(LINES[0], [now_ms()]))
        os.environ.update(instance_environ(home, os.environ))
        if database is None:
            os.environ.pop("IIOT_DATABASE_URL", None)
        server = stack.enter_context(
            dagster_server.running(settings, pool=() if kind.pool else None)
        )
        dagster_server.wait_for(
            lambda: processes.daemon_ready(server.port), "daemon", dagster_server.START_TIMEOUT_S
        )
        yield Started(server, settings, database)


class Feed:
    """Ten rows a second and line; remembers when each was."""

    def __init__(self, home: Home, engine: Engine) -> None:
        self._home = home
        self._engine = engine
        self._times: dict[tuple[str, int], list[int]] = {}

    def go_on(self, lines: Sequence[str], seconds: float) -> None:
        until, told = time.monotonic() + seconds, now_ms()
        while time.monotonic() < until:
            time.sleep(FEED_S)
            times = range(told, now_ms(), STEP_MS)
            for line in lines:
                lo, _ = write_segments(self._home, line, signal_records(line, times), rows=10_000)
                self._times[line, lo] = list(times)
            told = times[-1] + STEP_MS if times else told

    def lags_s(self, since_ms: int) -> list[float]:
        """From the time of every row to its commit, of batches since then."""
        found: list[float] = []
        for line in {line for line, _ in self._times}:
            committed = [
                (batch["lo"], batch["hi"], batch["committed_ms"])
                for batch in self._engine.ledger.batches(line, 10_000)
                if batch["kind"] == "live" and batch["committed_ms"] >= since_ms
            ]
            for (of_line, start), times in self._times.items():
                if of_line == line:
                    found += [
                        (at - ts) / 1_000
                        for offset, ts in enumerate(times, start)
                        for lo, hi, at in committed
                        if lo <= offset < hi and ts >= since_ms
                    ]
        return found


def runs_since(instance: DagsterInstance, since_s: float) -> list[tuple[bool, float]]:
    """Runs that have ended: whether well, and the seconds they took from their creation."""
    return [
        (record.dagster_run.status == DagsterRunStatus.SUCCESS, record.end_time - created)
        for record in instance.get_run_records()
        if (created := record.create_timestamp.timestamp()) >= since_s and record.end_time
    ]


def measure(
    at: Started, feed: Feed, instance: DagsterInstance, lines: int, seconds: float, idle: float
) -> dict[str, Any]:
    since_s, before, began = time.time(), at.cpu_s(), time.monotonic()
    feed.go_on(LINES[:lines], seconds)
    deadline = time.monotonic() + DRAIN_S
    under_way = RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)
    while instance.get_runs_count(under_way) and time.monotonic() < deadline:
        time.sleep(0.2)
    took, cpu = time.monotonic() - began, at.cpu_s() - before
    found = runs_since(instance, since_s)
    good = [seconds for passed, seconds in found if passed]
    lags = feed.lags_s(int(since_s * 1_000))
    count = len(found) or math.nan
    return {
        "lines": lines,
        "runs": len(found),
        "failed": len(found) - len(good),
        "cores": round(cpu / took, 3),
        "cpu_s_a_run": round(cpu / count, 3),
        "cpu_s_a_run_added": round((cpu - idle * took) / count, 3),
        "run_p50_s": round(percentile(good, 0.5), 2),
        "run_p95_s": round(percentile(good, 0.95), 2),
        "source_p50_s": round(percentile(lags, 0.5), 2),
        "source_p95_s": round(percentile(lags, 0.95), 2),
    }


def bytes_a_batch(instance: DagsterInstance, before: tuple[int, int]) -> dict[str, float]:
    """What a batch takes of Dagster's storage, and what is left of it after pruning."""
    start_bytes, start_runs = before
    reclaim(instance)
    runs = instance.get_runs_count() - start_runs
    full = space(instance).used - start_bytes
    keep = BatchSettings(keep_live_runs_s=1)
    prune(instance, keep, now=datetime.now(UTC) + timedelta(seconds=60))
    reclaim(instance)
    left = space(instance).used - start_bytes
    return {
        "runs": runs,
        "bytes_a_batch": round(full / max(runs, 1)),
        "bytes_a_batch_pruned": round(left / max(runs, 1)),
    }


def measured(kind: Kind, lines: Sequence[int], seconds: float) -> dict[str, Any]:
    with servers(kind) as at:
        home = replace(at.settings.home)
        plant = load_plant(at.settings.plant_path, os.environ)
        with closing(Engine(home, plant)) as engine, DagsterInstance.get() as instance:
            feed = Feed(home, engine)
            feed.go_on(LINES[:1], WARM_S)  # what is made once is made
            time.sleep(4)
            begun = (space(instance).used, instance.get_runs_count())
            before = at.cpu_s()
            time.sleep(IDLE_S)
            idle = (at.cpu_s() - before) / IDLE_S
            counts = [n for n in lines if kind.pool or n <= SATURATED] or [min(lines)]
            found = [measure(at, feed, instance, n, seconds, idle) for n in counts]
            stored = bytes_a_batch(instance, begun)
    return {"idle_cores": round(idle, 3), "storage": stored, "runs": found}


def ratios(of: Mapping[str, Any], to: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How many times as much the first takes, where both were measured."""
    names = ("cpu_s_a_run", "cpu_s_a_run_added", "run_p50_s", "run_p95_s", "source_p95_s")
    others = {row["lines"]: row for row in to["runs"]}
    return [
        {
            "lines": row["lines"],
            **{
                name: round(row[name] / (others[row["lines"]][name] or math.nan), 2)
                for name in names
            },
        }
        for row in of["runs"]
        if row["lines"] in others
    ]


def bench(lines: Sequence[int], seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {kind.name: measured(kind, lines, seconds) for kind in KINDS}
    found["process / pool_sqlite"] = ratios(found["process"], found["pool_sqlite"])
    found["pool_sqlite / pool_postgresql"] = ratios(found["pool_sqlite"], found["pool_postgresql"])
    return found


def text(figures: Mapping[str, Any]) -> Iterator[str]:
    for name, found in figures.items():
        if isinstance(found, list):
            yield name
            rows = found
        else:
            stored = ", ".join(f"{key} {value}" for key, value in found["storage"].items())
            yield f"{name}: idle {found['idle_cores']:.3f} cores; {stored}"
            rows = found["runs"]
        for row in rows:
            yield "    " + ", ".join(f"{key} {value}" for key, value in row.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of data for each measurement")
    parser.add_argument("--lines", type=int, nargs="+", default=[1, 10, 20])
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    arguments = parser.parse_args()
    figures = bench(arguments.lines, arguments.seconds)
    sys.stdout.write((json.dumps(figures) if arguments.json else "\n".join(text(figures))) + "\n")


if __name__ == "__main__":
    main()
