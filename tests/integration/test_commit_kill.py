"""Engines that are killed, and engines that race: nothing lost, nothing twice."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import sqlalchemy as sa

from iiot_platform.core.capture_log import Record
from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.garbage import collect
from tests.servers.capture_log import write_segments
from tests.servers.engine_process import STEPS
from tests.servers.engines import LINE, PLANT, contents, drain, engine_at, settle
from tests.servers.streams import disturb, line_records

ROWS = 10
RECORDS: list[Record] = disturb(line_records(5, 150), 5)
AT_RANDOM = 3
DEADLINE_S = 60.0


def start(home: Home, *at: str) -> subprocess.Popen[str]:
    """An engine process that waits for its start."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.servers.engine_process", home.root, str(ROWS), *at],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": "."},
    )


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """How a process ended, and what it said."""
    try:
        said, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    return process.returncode, said


def check(home: Home, folder: Path) -> Engine:
    """Takes the rest and compares everything with one computation over the same records."""
    engine = Engine(home, PLANT, sinks=("influxdb",))
    drain(engine, [ROWS])
    settle(engine)
    batches = [
        (b["lo"], b["hi"]) for b in engine.ledger.batches(LINE, 1_000) if b["kind"] == "live"
    ]
    batches.sort()
    assert batches[0][0] == 0
    assert batches[-1][1] == len(RECORDS)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(batches))
    once = engine_at(folder, RECORDS)
    drain(once, [10_000])
    assert contents(engine) == contents(once)
    assert _counts(engine, "quarantined") == _counts(once, "quarantined")
    assert engine.ledger.counts(LINE)["batches"] == len(batches)
    return engine


def _counts(engine: Engine, prefix: str) -> dict[str, int]:
    return {k: n for k, n in engine.ledger.counts(LINE).items() if k.startswith(prefix)}


def test_a_killed_engine_loses_and_doubles_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "var")
    write_segments(home, LINE, RECORDS, rows=ROWS)
    for step, count in zip(STEPS, (2, 7, 3, 1, 2, 1, 1), strict=True):
        victim = start(home, step, str(count))
        go(victim)
        assert end(victim)[0] == -signal.SIGKILL, step
    noise = random.Random(3)
    for _ in range(AT_RANDOM):
        victim = start(home)
        go(victim)
        time.sleep(noise.random() * 0.3)  # the fault itself: at any moment
        victim.kill()
        victim.wait()
        end(victim)
    engine = check(home, tmp_path / "once")
    files = set(engine.store.files())
    with engine.ledger.reading() as connection:
        known = set(connection.execute(sa.select(db.FILES.c.path)).scalars())
    assert known <= files
    assert files - known, "no kill left a file behind: the steps are not where they should be"
    collect(engine.ledger, engine.store, grace_s=-1, keep_versions=1_000)
    assert set(engine.store.files()) == known


def test_of_two_engines_exactly_one_takes_each_batch(tmp_path: Path) -> None:
    home = Home(tmp_path / "var")
    write_segments(home, LINE, RECORDS, rows=ROWS)
    racers = [start(home), start(home)]
    for racer in racers:
        go(racer)
    said = [end(racer) for racer in racers]
    assert [code for code, _ in said] == [0, 0]
    won, lost = (sum(int(text.split()[i]) for _, text in said) for i in range(2))
    engine = check(home, tmp_path / "once")
    assert won == engine.ledger.counts(LINE)["batches"] == -(-len(RECORDS) // ROWS)
    assert lost > 0, "they never met"
