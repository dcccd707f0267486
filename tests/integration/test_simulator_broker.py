"""The simulator against a real mosquitto, read by a subscriber of its own."""

import contextlib
import csv
import getpass
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import SecretStr

from simulator import BrokerAddress, ReplayOptions, RunOptions, SimulatorError, replay, run
from simulator.labels import read_labels
from simulator.plant import SimulatedPlant
from simulator.publisher import CAUGHT_UP_MS
from simulator.scenario_file import load_scenario
from simulator.stats import SimulatorFiles, Stats
from tests.servers.ports import free_port

DEADLINE_S = 60.0
SCENARIO = """
name: small
lines:
  l1:
    m:
      fast: {kind: signal, rate_hz: 50, mean: 5, sigma: 0.1}
      motor: {kind: electrical, period_s: 4, running_s: 2}
  l2:
    m:
      slow: {kind: signal, rate_hz: 5, mean: 5, sigma: 0.1}
      door: {kind: state, rate_hz: 5, sequence: [[1, 2], [0, 1]]}
faults:
  - {fault: spike, device: l1/m/fast, every_s: 2}
"""


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {DEADLINE_S} s"
        time.sleep(0.02)


class Broker:
    """A mosquitto on a free port, with extra lines of configuration."""

    def __init__(self, folder: Path, *extra: str) -> None:
        self.port = free_port()
        self._config = folder / f"mosquitto-{self.port}.conf"
        # started by root it would otherwise become a user who can not read the test's folder
        user = f"user {getpass.getuser()}"
        lines = [user, f"listener {self.port} 127.0.0.1", "max_queued_messages 0", *extra]
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress(port=self.port)

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._listens, "start of mosquitto")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(DEADLINE_S)
            self._process = None

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


@contextlib.contextmanager
def running(broker: Broker) -> Iterator[Broker]:
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@contextlib.contextmanager
def collected(broker: Broker) -> Iterator[list[tuple[str, bytes]]]:
    """Everything that the broker passes on."""
    found: list[tuple[str, bytes]] = []
    subscribed = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_connect = lambda *_: client.subscribe("#", 1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _c, _u, message: found.append((message.topic, message.payload))
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        assert subscribed.wait(DEADLINE_S)
        yield found
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with running(Broker(tmp_path, "allow_anonymous true")) as one:
        yield one


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


def expected(scenario: Path, home: Path, start_ms: int, end_ms: int) -> Counter[tuple[str, bytes]]:
    """What the scenario says in [start, end), from its own mouth."""
    state = SimulatorFiles(home).read_state()["small"]
    plant = SimulatedPlant(load_scenario(scenario), anchor_ms=state.anchor_ms)
    return Counter((m.topic, m.payload) for m in plant.chunk(start_ms, end_ms).messages)


def test_history_live_and_restart_leave_no_gap_and_no_duplicate(
    broker: Broker, scenario: Path, tmp_path: Path
) -> None:
    options = RunOptions(
        scenario=scenario, home=tmp_path, broker=broker.address, history_s=60, seconds=1
    )
    with collected(broker) as found:
        first = run(options)
        second = run(options)
        total = first.published + second.published
        eventually(lambda: len(found) >= total, "arrival of every message")
    start_ms = first.started_ms - 60_000
    assert Counter(found) == expected(scenario, tmp_path, start_ms, second.position_ms)
    assert first.history > 3_000
    assert first.live > 20
    assert first.history + first.live == first.published == first.enqueued
    assert first.live_since_ms is not None
    assert first.started_ms - CAUGHT_UP_MS <= first.live_since_ms <= first.position_ms - 1_000
    assert second.started_ms - second.position_ms < 0
    labels = read_labels(SimulatorFiles(tmp_path).labels)
    starts = [(label.series, label.start_ms) for label in labels]
    assert len(starts) == len(set(starts)) >= 30


def test_lines_go_on_each_from_where_it_was(broker: Broker, scenario: Path, tmp_path: Path) -> None:
    options = RunOptions(
        scenario=scenario, home=tmp_path, broker=broker.address, history_s=30, seconds=0.5
    )
    with collected(broker) as found:
        first = run(options.model_copy(update={"lines": ("l1",)}))
        second = run(options)
        total = first.published + second.published
        eventually(lambda: len(found) >= total, "arrival of every message")
    l1 = [message for message in found if message[0].startswith("l1/")]
    whole = expected(scenario, tmp_path, first.started_ms - 30_000, second.position_ms)
    assert Counter(l1) == Counter({m: n for m, n in whole.items() if m[0].startswith("l1/")})
    assert second.published_per_line["l2"] > second.published_per_line["l1"]


def test_a_terminated_process_has_counted_exactly_what_arrived(
    broker: Broker, scenario: Path, tmp_path: Path
) -> None:
    files = SimulatorFiles(tmp_path)
    arguments = ["run", "--scenario", str(scenario), "--home", str(tmp_path), "--json"]
    with collected(broker) as found:
        process = subprocess.Popen(
            [sys.executable, "-m", "simulator", *arguments, "--port", str(broker.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(
                lambda: files.stats.exists() and json.loads(files.stats.read_bytes())["live"] > 20,
                "live part",
            )
            process.send_signal(signal.SIGTERM)
            answer, _ = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
            process.wait()
        stats = json.loads(files.stats.read_bytes())
        eventually(lambda: len(found) >= stats["published"], "arrival of every message")
    assert process.returncode == 0
    assert json.loads(answer) == stats
    assert stats["phase"] == "stopped"
    assert stats["outstanding"] == 0
    assert stats["published"] == stats["enqueued"] == len(found)
    assert Counter(found) == expected(scenario, tmp_path, stats["started_ms"], stats["position_ms"])


def test_a_broker_that_goes_and_comes_back_costs_nothing(
    broker: Broker, scenario: Path, tmp_path: Path
) -> None:
    stop = threading.Event()
    seen: list[Stats] = []
    results: list[Stats] = []
    options = RunOptions(scenario=scenario, home=tmp_path, broker=broker.address, history_s=5)
    thread = threading.Thread(
        target=lambda: results.append(run(options, stop=stop, on_progress=seen.append))
    )
    thread.start()
    try:
        eventually(lambda: seen and seen[-1].live > 20, "live part")
        broker.stop()
        broker.start()
        back_ms = time.time_ns() // 1_000_000
        eventually(
            lambda: seen[-1].connections >= 2 and seen[-1].position_ms > back_ms, "second life"
        )
    finally:
        stop.set()
        thread.join(DEADLINE_S)
    (stats,) = results
    assert stats.outstanding == 0
    assert stats.published == stats.enqueued
    whole = expected(scenario, tmp_path, stats.started_ms - 5_000, stats.position_ms)
    assert stats.published == whole.total()


def test_it_waits_for_a_broker_that_is_not_there_yet(scenario: Path, tmp_path: Path) -> None:
    broker = Broker(tmp_path, "allow_anonymous true")
    options = RunOptions(scenario=scenario, home=tmp_path, broker=broker.address, seconds=0.5)
    results: list[Stats] = []
    thread = threading.Thread(target=lambda: results.append(run(options)))
    thread.start()
    eventually(SimulatorFiles(tmp_path).stats.exists, "first counts")
    with running(broker):
        thread.join(DEADLINE_S)
    assert results[0].published > 20


def test_stopping_without_a_broker_is_orderly(scenario: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    options = RunOptions(
        scenario=scenario, home=tmp_path, broker=Broker(tmp_path).address, history_s=5
    )
    stats = run(options, stop=stop, on_progress=lambda _: stop.set())
    assert (stats.published, stats.enqueued) == (0, 0)
    assert 0 <= stats.position_ms - (stats.started_ms - 5_000) < 100


def test_a_wrong_password_is_said_at_once(scenario: Path, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "sim", "right"], check=True)
    with running(Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}")) as one:
        address = one.address.model_copy(update={"username": "sim", "password": SecretStr("right")})
        options = RunOptions(scenario=scenario, home=tmp_path, broker=address, seconds=0.3)
        assert run(options).published > 10
        wrong = address.model_copy(update={"password": SecretStr("mistaken")})
        with pytest.raises(SimulatorError, match="check user name, password") as error:
            run(options.model_copy(update={"broker": wrong}))
    assert "mistaken" not in str(error.value)


def test_what_an_access_rule_refuses_is_counted_apart(scenario: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text("topic write l1/#\ntopic read #\n")
    with running(Broker(tmp_path, "allow_anonymous true", f"acl_file {rules}")) as one:
        stats = run(RunOptions(scenario=scenario, home=tmp_path, broker=one.address, seconds=1))
    assert set(stats.published_per_line) == {"l1"}
    assert stats.refused > 5
    assert stats.published + stats.refused == stats.enqueued


def test_an_encrypted_connection(scenario: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key)),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    lines = ("allow_anonymous true", f"certfile {certificate}", f"keyfile {key}")
    with running(Broker(tmp_path, *lines)) as one:
        address = one.address.model_copy(update={"tls_ca": certificate})
        options = RunOptions(
            scenario=scenario, home=tmp_path, broker=address, history_s=20, seconds=0.3
        )
        stats = run(options)
    assert stats.published == stats.enqueued > 1_000


@pytest.fixture(scope="module")
def skab() -> Path:
    folder = Path(os.environ.get("IIOT_TEST_DATA", "")) / "skab"
    if "IIOT_TEST_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("IIOT_TEST_DATA names no folder with the recordings skab/*.csv")
    return folder


def test_a_recording_arrives_bit_for_bit(skab: Path, broker: Broker, tmp_path: Path) -> None:
    path = skab / "1.csv"
    with collected(broker) as found:
        stats = replay(
            ReplayOptions(
                csv=path,
                line="lab",
                machine="skab",
                rate="max",
                home=tmp_path,
                broker=broker.address,
            )
        )
        eventually(lambda: len(found) >= stats.published, "arrival of every message")
    arrived: dict[str, list[Any]] = defaultdict(list)
    for topic, payload in found:
        message = json.loads(payload)
        assert topic == f"lab/skab/{message['SensorName']}"
        arrived[message["SensorName"]].append(message["SensorValue"].hex())
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    columns = [c for c in rows[0] if c not in {"datetime", "anomaly", "changepoint"}]
    assert set(arrived) == set(columns)
    assert "Volume Flow RateRMS" in arrived
    for name in columns:
        assert arrived[name] == [float(row[name]).hex() for row in rows]
    labels = read_labels(SimulatorFiles(tmp_path).labels)
    labelled = sum(len(x.ts_ms or ()) for x in labels if x.fault == "anomaly")
    assert labelled == sum(float(row["anomaly"]) for row in rows) > 0


def test_a_paced_replay_takes_place_now(broker: Broker, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("time,x\n" + "".join(f"2020-01-01 00:00:{i:02d},{i}.5\n" for i in range(21)))
    begin_ms = time.time_ns() // 1_000_000
    with collected(broker) as found:
        stats = replay(
            ReplayOptions(
                csv=path,
                line="lab",
                machine="m",
                rate="20x",
                shift_to_now=True,
                home=tmp_path,
                broker=broker.address,
            )
        )
        eventually(lambda: len(found) >= stats.published, "arrival of every message")
    times = [json.loads(payload)["TimeStamp"] for _, payload in found]
    assert [b - a for a, b in itertools.pairwise(times)] == [50] * 20
    assert begin_ms <= times[0]
    assert times[-1] <= stats.updated_ms
    assert stats.published == 21
