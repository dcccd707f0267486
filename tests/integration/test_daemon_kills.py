"""Runs that a real daemon starts and that are killed at any moment: nothing lost, nothing twice."""

import contextlib
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import yaml

from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core import schema
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import hour_of, now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from tests.servers import dagster as dagster_server
from tests.servers.capture_log import write_segments
from tests.servers.dagster import Dagster, wait_for
from tests.servers.engines import LINE, PLANT, contents, drain, engine_at, rows_of
from tests.servers.streams import HOUR_MS, disturb, line_records

MESSAGES = 400
HOURS = 3
CLOSED_HOURS_AGO = 2
"""The newest hour has closed whatever the time."""
KILLS = 4
FAULTS_S = 60.0
"""At most; it takes half of it where the machine is idle."""
EARLY = 0.25
"""Share of the kills that come while a process starts."""
STARTING_S = 2.0
COMPUTING_S = 1.0
LOOK_S = 0.01
SEGMENT_ROWS = 3
QUIET_TIMEOUT_S = 40.0


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("installation")
    plant = root / "plant.yaml"
    wanted = PLANT.model_dump(
        mode="json", include={"lines": {"__all__": {"name"}}, "defaults": True}
    )
    plant.write_text(yaml.safe_dump(wanted), encoding="utf-8")
    found = Settings(home=Home(root / "var"), plant_path=plant)
    found.home.root.mkdir()
    assert load_plant(plant, {}).line_settings(LINE) == PLANT.line_settings(LINE)
    return found


@pytest.fixture(scope="module")
def dagster(settings: Settings) -> Iterator[Dagster]:
    with dagster_server.running(settings) as server:
        yield server


def workers(dagster: Dagster) -> list[psutil.Process]:
    """The processes of runs: what the code server has spawned."""
    found = []
    code_server = psutil.Process(dagster.started[0].pid)
    for process in code_server.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("spawn_main" in part for part in process.cmdline()):
                found.append(process)
    return found


def check(engine: Engine, folder: Path, records: Sequence[Record]) -> None:
    """Settles every hour and compares all with one computation over the same records."""
    for hour in engine.unsettled_hours(LINE):
        assert not engine.settle(LINE, hour, run_id="settle").defects
    assert not engine.dirty_hours(LINE)
    live = (b for b in engine.ledger.batches(LINE, 1_000) if b["kind"] == "live")
    taken = sorted((b["lo"], b["hi"]) for b in live)
    assert (taken[0][0], taken[-1][1]) == (0, len(records))
    assert all(left[1] == right[0] for left, right in itertools.pairwise(taken))
    late = sum(len(rows_of(engine, schema.LATE_ROWS, hour)) for hour in engine.ledger.hours(LINE))
    assert late, "the log held nothing that came late"

    once = engine_at(folder, records, rows=1_000)
    assert drain(once, [len(records)]) == 1
    for hour in once.unsettled_hours(LINE):
        once.settle(LINE, hour, run_id="settle")
    assert contents(engine) == contents(once)


class Killer:
    """Kills each process of a run at a moment of its own: most of them while they compute.

    Most of a process's life goes by before it opens the ledger, and little happens then.
    """

    def __init__(self, ledger: Path, seed: int) -> None:
        self._ledger = str(ledger)
        self._noise = random.Random(seed)
        self._due: dict[psutil.Process, float] = {}
        self._early: dict[psutil.Process, bool] = {}
        self.computing: list[bool] = []
        """Of each kill, whether it hit a process that had opened the ledger."""

    def look(self, dagster: Dagster) -> None:
        now = time.monotonic()
        for process in workers(dagster):
            with contextlib.suppress(psutil.NoSuchProcess):
                computes = any(file.path == self._ledger for file in process.open_files())
                early = self._early.setdefault(process, self._noise.random() < EARLY)
                if early or computes:
                    longest_s = STARTING_S if early else COMPUTING_S
                    self._due.setdefault(process, now + self._noise.uniform(0, longest_s))
                if now >= self._due.get(process, now + 1):
                    process.kill()
                    self.computing.append(computes)
                    process.wait(5)


def test_killed_runs_lose_and_double_nothing(
    dagster: Dagster, settings: Settings, tmp_path: Path
) -> None:
    start = (hour_of(now_ms()) - CLOSED_HOURS_AGO - HOURS) * HOUR_MS
    records = disturb(line_records(7, MESSAGES, spread_ms=HOURS * HOUR_MS, start_ms=start), 7)
    killer = Killer(settings.home.ledger, 7)
    deadline, began = time.monotonic() + FAULTS_S, time.monotonic()
    written = 0
    while len(killer.computing) < KILLS and time.monotonic() < deadline:
        # the log grows evenly and is whole when the faults end
        due = int(len(records) * (time.monotonic() - began) / FAULTS_S)
        if due >= written + SEGMENT_ROWS:
            write_segments(settings.home, LINE, records[written:due], rows=SEGMENT_ROWS)
            written = due
        killer.look(dagster)
        time.sleep(LOOK_S)  # the log's own pace
    write_segments(settings.home, LINE, records[written:], rows=SEGMENT_ROWS)
    assert len(killer.computing) == KILLS
    assert any(killer.computing)

    with contextlib.closing(Engine(settings.home, PLANT)) as engine:
        wait_for(
            lambda: engine.ledger.watermark(LINE) == engine.log.head(LINE) == len(records),
            "the rest of the log",
            QUIET_TIMEOUT_S,
        )
        wait_for(lambda: not engine.dirty_hours(LINE), "every dirty hour", QUIET_TIMEOUT_S)
        assert dagster.stop() == []
        check(engine, tmp_path, records)
