"""Recordings of a real machine through broker, buffer and engine: each value with its own time."""

import csv
import itertools
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from iiot_platform.client import Client
from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.clock import now_ms, to_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from simulator import BrokerAddress, ReplayOptions, replay
from tests.servers.engines import LINE, rows_of
from tests.servers.mosquitto import MosquittoServer

DEADLINE_S = 60.0
LABELS = {"anomaly", "changepoint"}
TWENTY_YEARS_S = 20 * 365 * 86_400
PLANT = Plant.model_validate({"lines": [LINE], "max_lateness_s": TWENTY_YEARS_S})
Series = dict[str, dict[int, bytes]]


@pytest.fixture
def recording() -> Path:
    folder = Path(os.environ.get("IIOT_TEST_DATA", "")) / "skab"
    if "IIOT_TEST_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("IIOT_TEST_DATA names no folder with the recordings skab/*.csv")
    return folder / "1.csv"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MosquittoServer]:
    with MosquittoServer(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def captured(home: Home, broker: MosquittoServer) -> Iterator[Home]:
    """A home whose buffer captures what the broker brings."""
    buffer = subprocess.Popen(
        [sys.executable, "-m", "tests.servers.buffer", home.root, str(broker.port), LINE],
        env=os.environ | {"SEAL_INTERVAL_S": "0.3", "PYTHONPATH": "."},
    )
    try:
        until(lambda: any(state == "connected" for state in sources(home)), "the buffer's session")
        yield home
    finally:
        buffer.terminate()
        try:
            buffer.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            buffer.kill()
            buffer.wait()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "var")


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {DEADLINE_S} s"
        time.sleep(0.05)


def sources(home: Home) -> list[object]:
    try:
        status = json.loads((home.capture / "status.json").read_text())
    except FileNotFoundError:
        return []
    return [source["state"] for source in status["sources"].values()]


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


def recorded(path: Path) -> Series:
    """Each channel's values by time, read by nobody else's code; the last of equal times stands."""
    found: Series = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file, delimiter=";"):
            at = to_ms(datetime.fromisoformat(row.pop("datetime")).replace(tzinfo=UTC))
            for name, cell in row.items():
                if name not in LABELS:
                    found.setdefault(name, {})[at] = bits(float(cell))
    return found


def stored(engine: Engine) -> Series:
    """What stands in `signals`, by sensor and time."""
    found: Series = {}
    for hour in engine.ledger.hours(LINE):
        rows = rows_of(engine, schema.SIGNALS, hour)
        ms = rows.column("ts").cast(pa.int64()).to_pylist()
        names = rows.column("sensor_name").to_pylist()
        for name, at, value in zip(names, ms, rows.column("value").to_pylist(), strict=True):
            assert at not in found.setdefault(name, {})
            found[name][at] = bits(value)
    return found


def in_order(series: Series) -> dict[str, list[bytes]]:
    """Each channel's values in the order of their times."""
    return {name: [values[at] for at in sorted(values)] for name, values in series.items()}


def options(path: Path, broker: MosquittoServer, folder: Path, **more: object) -> ReplayOptions:
    return ReplayOptions.model_validate(
        {
            "csv": path,
            "line": LINE,
            "machine": "testbed",
            "home": folder,
            "broker": BrokerAddress(port=broker.port),
            **more,
        }
    )


@pytest.mark.timeout(180)
def test_every_value_of_a_recording_stands_with_its_own_time(
    recording: Path, captured: Home, broker: MosquittoServer, tmp_path: Path
) -> None:
    expected = recorded(recording)
    times = sorted(next(iter(expected.values())))
    steps = {late - early for early, late in itertools.pairwise(times)}
    assert min(steps) == 1_000
    assert max(steps) > 1_000, "a recording without a gap shows nothing"
    sent = replay(options(recording, broker, tmp_path / "sent", rate="max"))
    engine = Engine(captured, PLANT)
    cells = sum(len(values) for values in expected.values())
    until(lambda: engine.log.head(LINE) >= cells, "the last sealed record")
    taken = 0
    while report := engine.run_batch(LINE, run_id="recording", row_cap=2_000):
        assert not report.quarantined
        taken += report.hi - report.lo
    assert taken == engine.log.head(LINE)
    assert sent.skipped == 0
    assert stored(engine) == expected
    frame = Client(captured).table(LINE, "signals", sensor_name="Pressure")
    assert {bits(value) for value in frame["value"]} == set(expected["Pressure"].values())
    assert len(frame) == len(expected["Pressure"])
    verdicts = sum(
        len(rows_of(engine, schema.SIGNAL_ANOMALIES, h)) for h in engine.ledger.hours(LINE)
    )
    assert verdicts == cells


@pytest.mark.timeout(180)
def test_the_tables_follow_a_recording_that_takes_place_now(
    recording: Path, captured: Home, broker: MosquittoServer, tmp_path: Path
) -> None:
    piece = tmp_path / "piece.csv"
    piece.write_text("".join(recording.read_text().splitlines(keepends=True)[:301]))
    expected = recorded(piece)
    began = now_ms()
    player = threading.Thread(
        target=replay,
        args=(options(piece, broker, tmp_path / "sent", rate="30x", shift_to_now=True),),
    )
    player.start()
    engine = Engine(captured, PLANT)
    cells = sum(len(values) for values in expected.values())
    lags, while_playing = [], 0
    deadline = time.monotonic() + DEADLINE_S
    while engine.ledger.watermark(LINE) < cells:
        assert time.monotonic() < deadline
        report = engine.run_batch(LINE, run_id="live")
        if report is None:
            time.sleep(0.05)
        else:
            lags.append(report.lag_s)
            while_playing += player.is_alive()
    player.join(DEADLINE_S)
    found = stored(engine)
    assert while_playing >= 2, "the tables were filled only afterwards"
    assert min(lags) < DEADLINE_S
    assert in_order(found) == in_order(expected)
    assert all(began <= at <= now_ms() for values in found.values() for at in values)
    assert not engine.dirty_hours(LINE)
