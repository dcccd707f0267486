"""`kill -9` of the buffer under load: nothing lost, nothing twice."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from iiot_platform.core.paths import Home
from tests.servers.buffer import MQTT_CLIENTS
from tests.servers.capture_reader import sealed_records, unlisted_files
from tests.servers.fault_table import ALL, Outcome, Tell
from tests.servers.mosquitto import MosquittoServer, program

RATE_PER_S = 2_000
AT_STEPS = [
    ("commit.written", 3),
    ("commit.durable", 4),
    ("commit.acknowledged", 3),
    ("seal.written", 1),
    ("seal.synced", 2),
    ("seal.renamed", 1),
    ("seal.folder_synced", 2),
]
AT_RANDOM = 2  # and the first one
DEADLINE_S = 140.0
"""An idle machine needs 40 s, most of it for imports."""


class Load:
    """A publisher at QoS 1 that numbers its messages."""

    def __init__(self, port: int) -> None:
        self.sent: list[bytes] = []
        self._stop = threading.Event()
        command = [program("mosquitto_pub"), "-p", str(port), "-t", "line1/press/temp"]
        self._process = subprocess.Popen(
            [*command, "-q", "1", "-l", "-V", "5"], stdin=subprocess.PIPE
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        assert self._process.stdin is not None
        began = time.monotonic()
        while not self._stop.wait(0.02):
            due = int((time.monotonic() - began) * RATE_PER_S) - len(self.sent)
            # Half of the payloads repeat, so that a payload alone tells no message.
            fresh = [
                b'{"n":%d,"v":%d}' % (n // 2, n % 7 * (n % 2))
                for n in range(len(self.sent), len(self.sent) + due)
            ]
            self._process.stdin.write(b"".join(line + b"\n" for line in fresh))
            self._process.stdin.flush()
            self.sent += fresh

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0


def _start(home: Home, port: int, *at: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.servers.buffer", home.root, str(port), "line1", *at],
        env=os.environ | {"SEAL_INTERVAL_S": "0.3", "PYTHONPATH": "."},
    )


def _status(home: Home) -> dict[str, object]:
    try:
        status: dict[str, object] = json.loads((home.capture / "status.json").read_text())
    except FileNotFoundError:
        return {}
    return status


def _captured(home: Home, pid: int) -> int:
    """Messages captured, as the process of this id says; -1 before it says anything."""
    status = _status(home)
    if status.get("pid") != pid:
        return -1
    return int(status["lines"]["line1"]["captured"])  # type: ignore[index]


@pytest.mark.timeout(180)
@pytest.mark.faults
@pytest.mark.parametrize("mqtt_client", MQTT_CLIENTS if ALL else MQTT_CLIENTS[:1], indirect=True)
@pytest.mark.parametrize("seed", range(7, 15) if ALL else [7])
@pytest.mark.usefixtures("mqtt_client")
def test_nothing_is_lost_or_doubled_by_ten_kills(tmp_path: Path, told: Tell, seed: int) -> None:
    began = time.monotonic()
    home = Home(tmp_path / "home")
    choose = random.Random(seed)
    plans: list[tuple[str, int] | None] = [*AT_STEPS, *[None] * AT_RANDOM]
    choose.shuffle(plans)
    with MosquittoServer(tmp_path / "broker") as broker:
        load: Load | None = None
        buffer = _start(home, broker.port)
        try:
            _until(lambda: _connected(home), began)
            load = Load(broker.port)
            _until(lambda: _captured(home, buffer.pid) > 0, began)
            buffer.kill()
            buffer.wait()
            for plan in plans:
                at = () if plan is None else (plan[0], str(plan[1]))
                buffer = _start(home, broker.port, *at)
                if plan is None:
                    _until(partial(_reports, home, buffer.pid), began)
                    time.sleep(choose.uniform(0.1, 0.8))
                    buffer.kill()
                assert buffer.wait(60) == -signal.SIGKILL
            load.stop()
            buffer = _start(home, broker.port)
            ended = time.monotonic()
            _until(lambda: _captured(home, buffer.pid) >= len(load.sent), began)
            recovered_s = time.monotonic() - ended
            buffer.send_signal(signal.SIGTERM)
            assert buffer.wait(60) == 0
        finally:
            if load is not None and load._thread.is_alive():
                load.stop()
            if buffer.poll() is None:
                buffer.kill()
                buffer.wait()
    stored = Counter(record.payload for record in sealed_records(home, "line1"))
    sent = Counter(load.sent)
    told(
        Outcome(
            f"buffer killed at steps of commit and seal, seed {seed}",
            len(plans) + 1,
            sent.total(),
            (sent & stored).total(),
            (stored - sent).total(),
            recovered_s,
        )
    )
    assert stored == sent
    assert unlisted_files(home) == set()


@pytest.mark.timeout(180)
@pytest.mark.faults
@pytest.mark.skipif(not ALL, reason="takes a minute: make faults")
@pytest.mark.parametrize("mqtt_client", MQTT_CLIENTS, indirect=True)
@pytest.mark.usefixtures("mqtt_client")
def test_a_backlog_beyond_the_window_is_stored_once(tmp_path: Path, told: Tell) -> None:
    """A broker with much to send has more under way than it may: mosquitto 2.0.11 five times."""
    began = time.monotonic()
    home = Home(tmp_path / "home")
    *sent, last_one = [b'{"n":%d}' % n for n in range(60_001)]
    plans = [("commit.durable", "3"), ("commit.written", "3"), ("commit.acknowledged", "2")]
    with MosquittoServer(tmp_path / "broker") as broker:
        first = _start(home, broker.port)
        _until(lambda: _connected(home), began)
        first.terminate()
        assert first.wait(60) == 0
        command = [program("mosquitto_pub"), "-p", str(broker.port), "-t", "line1/press/temp"]
        for at in range(0, len(sent), 30_000):
            lines = b"".join(payload + b"\n" for payload in sent[at : at + 30_000])
            subprocess.run([*command, "-q", "1", "-l"], input=lines, check=True, timeout=60)
        for plan in plans:
            assert _start(home, broker.port, *plan).wait(60) == -signal.SIGKILL
        last = _start(home, broker.port)
        try:
            # the broker keeps the order: what it sends twice comes before this
            mosquitto_last = [*command, "-q", "1", "-m", last_one.decode()]
            subprocess.run(mosquitto_last, check=True, timeout=60)
            _until(lambda: last_one in _stored(home), began)
            last.terminate()
            assert last.wait(60) == 0
        finally:
            last.kill()
    sent.append(last_one)
    outcome = Outcome.of("buffer killed before a backlog", len(plans), sent, _stored(home))
    told(outcome)
    outcome.must_be_whole()


def _stored(home: Home) -> list[bytes]:
    return [record.payload for record in sealed_records(home, "line1")]


def _reports(home: Home, pid: int) -> bool:
    return _captured(home, pid) >= 0


def _connected(home: Home) -> bool:
    sources = _status(home).get("sources")
    return isinstance(sources, dict) and sources["mqtt"]["state"] == "connected"


def _until(condition: object, began: float) -> None:
    """Wait for a condition until the test's deadline."""
    assert callable(condition)
    while not condition():
        assert time.monotonic() - began < DEADLINE_S, "not in time"
        time.sleep(0.02)
