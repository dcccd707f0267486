"""The broker and the network break: what was acknowledged is in the log, once, or the loss told."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from buffer_service.service import CaptureService
from iiot_platform.core.paths import Home
from tests.servers.buffer import MQTT_CLIENTS, plant
from tests.servers.capture_reader import sealed_records
from tests.servers.fault_table import ALL, Outcome, Tell
from tests.servers.mosquitto import MosquittoServer, ShippedMosquitto
from tests.servers.numbered import Publisher, stored_bodies, stored_numbers
from tests.servers.tcp_proxy import TcpProxy

pytestmark = [
    pytest.mark.faults,
    pytest.mark.parametrize(
        "mqtt_client", MQTT_CLIENTS if ALL else MQTT_CLIENTS[:1], indirect=True
    ),
    pytest.mark.usefixtures("mqtt_client"),
]
DEADLINE_S = 60.0
LOGIN = ("buffer", "s3cret")
STORE_INTERVAL = 1_000
"""Changes that the shipped broker may have made since it last wrote its store."""


def until(condition: Callable[[], bool], what: str) -> float:
    """Waits; returns how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < DEADLINE_S, f"not in time: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


@contextmanager
def capturing(home: Path, port: int, **source: Any) -> Iterator[CaptureService]:
    with CaptureService(Home(home), plant(port, ["line1"], **source)) as service:
        until(lambda: source_of(service)["state"] == "connected", "connected")
        yield service


def source_of(service: CaptureService) -> dict[str, Any]:
    found: dict[str, Any] = service.statistics()["sources"]["mqtt"]
    return found


def captured(service: CaptureService) -> int:
    count: int = service.statistics()["lines"]["line1"]["captured"]
    return count


def holds_all(home: Path, publisher: Publisher) -> bool:
    return publisher.acknowledged <= set(stored_numbers(Home(home)))


def counted(publisher: Publisher, more: int) -> Callable[[], bool]:
    """True once so many more messages were acknowledged than now."""
    goal = len(publisher.acknowledged) + more
    return lambda: len(publisher.acknowledged) >= goal


def reconnected(service: CaptureService) -> Callable[[], bool]:
    """True once it has connected, and subscribed, once more than now; it may be more than once."""
    before = source_of(service)["connects"]
    return lambda: (
        source_of(service)["connects"] > before and source_of(service)["state"] == "connected"
    )


def test_the_shipped_broker_is_killed_and_comes_back(tmp_path: Path, told: Tell) -> None:
    kills = 10 if ALL else 2
    broker = ShippedMosquitto(tmp_path / "broker", users=dict([LOGIN]))
    login = {"username": LOGIN[0], "password": LOGIN[1]}
    with broker, capturing(tmp_path, broker.port, **login) as service:
        with Publisher(broker.port, rate_per_s=1_000, login=LOGIN) as publisher:
            for _ in range(kills):
                until(counted(publisher, 2 * STORE_INTERVAL), "messages before the kill")
                back = reconnected(service)
                broker.kill()
                until(lambda: source_of(service)["state"] == "disconnected", "noticed")
                broker.start()
                again_s = until(back, "back")
            until(counted(publisher, 100), "messages after the last kill")
        until(lambda: max(publisher.acknowledged) in set(stored_numbers(Home(tmp_path))), "last")
        new_sessions = source_of(service)["sessions_lost"]
    outcome = Outcome.of(
        "broker killed, configuration as shipped",
        kills,
        publisher.acknowledged,
        stored_numbers(Home(tmp_path)),
        recovered_s=again_s,
        noticed=f"{kills} disconnections, {new_sessions} lost sessions",
    )
    told(outcome)
    assert outcome.lost <= kills * STORE_INTERVAL
    # what the store still held as not delivered comes again, and is told by the time of the device
    assert outcome.duplicated <= kills * STORE_INTERVAL


def test_a_session_that_the_broker_lost_is_a_gap_in_the_log(
    tmp_path: Path, told: Tell, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broker = MosquittoServer(tmp_path / "broker")  # remembers nothing
    with broker, TcpProxy(broker.port) as proxy, capturing(tmp_path, proxy.port) as service:
        with Publisher(broker.port) as publisher:
            until(lambda: captured(service) >= 200, "messages")
            proxy.cut()
            until(lambda: source_of(service)["state"] == "disconnected", "noticed")
            until(counted(publisher, 200), "messages for a session that is away")
            broker.kill()
            broker.start()
            proxy.mend()
            until(lambda: source_of(service)["state"] == "connected", "back")
            until(counted(publisher, 200), "messages afterwards")
        until(lambda: max(publisher.acknowledged) in set(stored_numbers(Home(tmp_path))), "last")
        counts = source_of(service)
    (gap,) = stored_gaps(Home(tmp_path))
    outcome = Outcome.of(
        "session lost, broker without persistence",
        1,
        publisher.acknowledged,
        stored_numbers(Home(tmp_path)),
        noticed="gap record, counter, warning",
    )
    told(outcome)
    assert outcome.lost >= 100
    assert outcome.duplicated == 0
    assert counts["sessions_lost"] == 1
    assert gap["begin_ms"] < gap["end_ms"]
    assert "session" in gap["reason"]
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("has lost the session" in message for message in warned)


def test_a_session_that_is_lost_while_the_buffer_is_away_is_a_gap_too(tmp_path: Path) -> None:
    broker = MosquittoServer(tmp_path / "broker")
    with broker, capturing(tmp_path, broker.port) as service:
        assert source_of(service)["sessions_lost"] == 0
    broker.start()
    try:
        with capturing(tmp_path, broker.port) as service:
            until(lambda: source_of(service)["sessions_lost"] == 1, "told")
    finally:
        broker.stop()
    (gap,) = stored_gaps(Home(tmp_path))
    assert gap["begin_ms"] < gap["end_ms"]


def stored_gaps(home: Home) -> list[dict[str, Any]]:
    return [json.loads(body) for body in stored_bodies(home, topic="$gap/mqtt")]


def holes(home: Path) -> list[tuple[int, bool]]:
    """How many numbers each hole in the log lacks, and whether a gap stands at its place."""
    found, last, told = [], -1, False
    for record in sealed_records(Home(home), "line1"):
        if record.topic == "$gap/mqtt":
            told = True
            continue
        number = json.loads(record.payload)["n"]
        assert number > last, "neither twice nor out of order"
        if number != last + 1 and last >= 0:
            found.append((number - last - 1, told))
        last, told = number, False
    return found


def test_at_qos_0_what_is_lost_with_the_broker_is_told(tmp_path: Path, told: Tell) -> None:
    kills = 6 if ALL else 2
    broker = MosquittoServer(tmp_path / "broker", persistent=True)
    with (
        broker,
        TcpProxy(broker.port) as proxy,
        capturing(tmp_path, proxy.port) as service,
        Publisher(broker.port, qos=0) as publisher,
    ):
        for _ in range(kills):
            until(counted(publisher, 200), "messages before the kill")
            back = reconnected(service)
            proxy.cut()
            broker.kill()
            until(lambda: source_of(service)["state"] == "disconnected", "noticed")
            broker.start()
            until(counted(publisher, 100), "messages for a session that is away")
            proxy.mend()
            until(back, "back")
            before = captured(service)
            until(lambda n=before: captured(service) >= n + 200, "messages afterwards")
        assert source_of(service)["sessions_lost"] == 0
    tell_qos0("broker killed, QoS 0", kills, publisher, tmp_path, told)


def test_at_qos_0_what_is_lost_with_the_buffer_is_told(tmp_path: Path, told: Tell) -> None:
    kills, home = 6 if ALL else 2, Home(tmp_path)
    with MosquittoServer(tmp_path / "broker") as broker, Publisher(broker.port, qos=0) as publisher:
        for kill in range(kills + 1):
            before = len(stored_numbers(home)) if kill else 0
            command = [sys.executable, "-m", "tests.servers.buffer", tmp_path, str(broker.port)]
            buffer = subprocess.Popen([*command, "line1"], env=os.environ | {"PYTHONPATH": "."})
            try:
                until((home.capture / "status.json").exists, "a buffer that runs")
                until(lambda n=before: len(stored_numbers(home)) > n + 500, "messages in the log")
                buffer.send_signal(signal.SIGKILL if kill < kills else signal.SIGTERM)
                buffer.wait(30)
            finally:
                buffer.kill()
                buffer.wait()
        publisher.stop()
    tell_qos0("buffer killed, QoS 0", kills, publisher, tmp_path, told)


def tell_qos0(fault: str, times: int, publisher: Publisher, home: Path, told: Tell) -> None:
    """Between what stands in the log nothing is missing without a gap at its place."""
    found = holes(home)
    stored = stored_numbers(Home(home))
    sent = {n for n in publisher.acknowledged if min(stored) <= n <= max(stored)}
    outcome = Outcome.of(fault, times, sent, stored, noticed="gap record at each hole")
    told(outcome)
    assert outcome.duplicated == 0
    assert [size for size, has_gap in found if not has_gap] == []
    assert 0 < len(found) <= times
    assert 0 < outcome.lost <= sum(size for size, _ in found)


@pytest.mark.parametrize("how", ["reset", "black hole", "half open"])
def test_the_network_is_cut(tmp_path: Path, told: Tell, how: str) -> None:
    cuts = 8 if ALL else 1
    with (
        MosquittoServer(tmp_path / "broker") as broker,
        TcpProxy(broker.port) as proxy,
        capturing(tmp_path, proxy.port, keepalive_s=2) as service,
    ):
        with Publisher(broker.port) as publisher:
            for _ in range(cuts):
                until(counted(publisher, 200), "messages before the cut")
                back = reconnected(service)
                if how == "half open":
                    proxy.lose_servers()
                else:
                    proxy.cut(silently=how == "black hole")
                    until(lambda: source_of(service)["state"] == "disconnected", "noticed")
                    proxy.mend()
                until(back, "back")
        recovered_s = until(lambda: holds_all(tmp_path, publisher), "everything")
        assert source_of(service)["sessions_lost"] == 0
    outcome = Outcome.of(
        f"network cut: {how}",
        cuts,
        publisher.acknowledged,
        stored_numbers(Home(tmp_path)),
        recovered_s=recovered_s,
    )
    told(outcome)
    outcome.must_be_whole()


def test_two_buffers_with_one_client_id_wait_longer_and_longer(
    tmp_path: Path, told: Tell, caplog: pytest.LogCaptureFixture
) -> None:
    fight_s = 12.0 if ALL else 4.0
    with (
        MosquittoServer(tmp_path / "broker") as broker,
        capturing(tmp_path / "a", broker.port) as first,
    ):
        with (
            Publisher(broker.port) as publisher,
            CaptureService(Home(tmp_path / "b"), plant(broker.port, ["line1"])) as second,
        ):
            began = time.monotonic()
            until(lambda: time.monotonic() - began > fight_s, "a fight")
            connects = [source_of(one)["connects"] for one in (first, second)]
        homes = [Home(tmp_path / name) for name in "ab"]
        sent = publisher.acknowledged
        recovered_s = until(
            lambda: sent <= {n for home in homes for n in stored_numbers(home)}, "everything"
        )
    # each keeps at most what waits 0.05 x 0.25 s x 2^n between: a fight that does not slow down
    # would take hundreds
    assert max(connects) < 30
    assert "client id 'iiot-buffer'" in caplog.text
    found = [n for home in homes for n in stored_numbers(home)]
    outcome = Outcome.of(
        "two buffers, one client id",
        sum(connects) - 2,
        sent,
        found,
        recovered_s=recovered_s,
        noticed="warning with the client id; rows in both logs",
    )
    told(outcome)
    assert outcome.lost == 0
