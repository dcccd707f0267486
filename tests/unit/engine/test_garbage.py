"""Garbage goes after its grace; what counts, is kept or is young stays."""

import os
import time
from pathlib import Path

import pytest

from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.garbage import Collected, collect
from tests.servers.engines import LINE, contents, drain, engine_at
from tests.servers.streams import BASE_MS, line_records

HOUR = hour_of(BASE_MS)
GRACE_S = 100.0


@pytest.fixture
def engine(home: Home) -> Engine:
    engine = engine_at(home.root, line_records(3, 60, spread_ms=3_000_000))
    drain(engine, [20])
    return engine


def age(engine: Engine, seconds: float = 1_000) -> None:
    """Makes every file old, as far as the disk knows."""
    at = time.time() - seconds
    for path in engine.store.files():
        os.utime(engine.store.path(path), (at, at))


def current(engine: Engine) -> set[str]:
    files = engine.ledger.hour_files(LINE, HOUR)
    return {file.path for table in files.values() for file in table}


def run(engine: Engine, *, keep: int = 1, ahead_s: float = 1_000) -> Collected:
    now = int((time.time() + ahead_s) * 1_000)
    return collect(
        engine.ledger, engine.store, grace_s=GRACE_S, keep_versions=keep, clock=lambda: now
    )


def test_superseded_files_go_and_current_ones_stay(engine: Engine) -> None:
    for run_id in ("a", "b"):
        engine.rerun(LINE, HOUR, run_id=run_id)
    age(engine)
    before, counted = contents(engine), current(engine)
    dropped = set(engine.store.files()) - counted
    size = sum(engine.store.path(path).stat().st_size for path in dropped)
    assert run(engine) == Collected(superseded=len(dropped), orphans=0, bytes=size)
    assert set(engine.store.files()) == counted
    assert contents(engine) == before
    assert run(engine) == Collected(0, 0, 0)


def test_kept_versions_stay_whole(engine: Engine) -> None:
    engine.rerun(LINE, HOUR, run_id="a")
    previous = current(engine)
    engine.rerun(LINE, HOUR, run_id="b")
    age(engine)
    run(engine, keep=2)
    assert set(engine.store.files()) == previous | current(engine)


def test_within_the_grace_nothing_goes(engine: Engine) -> None:
    engine.rerun(LINE, HOUR, run_id="a")
    age(engine)
    before = set(engine.store.files())
    assert run(engine, ahead_s=GRACE_S - 50) == Collected(0, 0, 0)
    assert set(engine.store.files()) == before


def test_orphans_go_when_they_are_old(engine: Engine, home: Home) -> None:
    age(engine)
    folder = home.tables / "line1" / "signals"
    for name in ("orphan.parquet", "tmpx.tmp"):
        (folder / name).write_bytes(b"left behind")
    assert run(engine).orphans == 0
    young = set(engine.store.files())
    assert {"line1/signals/orphan.parquet", "line1/signals/tmpx.tmp"} <= young
    age(engine)
    assert run(engine, ahead_s=0).orphans == 2
    assert set(engine.store.files()) == young - {
        "line1/signals/orphan.parquet",
        "line1/signals/tmpx.tmp",
    }


def test_a_file_that_counts_again_under_its_old_name_stays(engine: Engine) -> None:
    """A rerun by the same run writes the same bytes: one path, dropped once and current once."""
    for _ in range(2):
        engine.rerun(LINE, HOUR, run_id="same")
    age(engine)
    before = contents(engine)
    run(engine)
    assert set(engine.store.files()) == current(engine)
    assert contents(engine) == before


def test_without_a_folder_there_is_nothing_to_collect(tmp_path: Path) -> None:
    engine = engine_at(tmp_path / "new", [])
    assert run(engine) == Collected(0, 0, 0)
