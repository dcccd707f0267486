"""Several buffers that share the messages of a line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from buffer_service.service import CaptureService
from iiot_platform.core.paths import Home
from tests.servers.buffer import plant
from tests.servers.capture_reader import sealed_records
from tests.servers.mosquitto import MosquittoServer, program

pytestmark = pytest.mark.usefixtures("mqtt_client")
DEADLINE_S = 60.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def publish(server: MosquittoServer, payloads: list[bytes], *options: str) -> None:
    command = [program("mosquitto_pub"), "-p", str(server.port), "-t", "line1/m/a"]
    subprocess.run(
        [*command, "-l", "-q", "1", *options],
        input=b"".join(payload + b"\n" for payload in payloads),
        check=True,
        timeout=DEADLINE_S,
    )


def numbers(start: int, stop: int) -> list[bytes]:
    return [b'{"n":%d}' % n for n in range(start, stop)]


def payloads(home: Path) -> list[bytes]:
    return [record.payload for record in sealed_records(Home(home), "line1")]


def subscribed(service: CaptureService) -> bool:
    source = service.statistics()["sources"]["mqtt"]
    return bool(source["state"] == "connected" and source["subscribed"])


def remembers(home: Path, topic_filter: str) -> bool:
    """True where the broker has confirmed that the session has this filter alone."""
    kept = json.loads((home / "capture" / "subscriptions-mqtt.json").read_text())
    return bool(list(kept["filters"]) == [topic_filter])


def captured(service: CaptureService) -> int:
    count: int = service.statistics()["lines"]["line1"]["captured"]
    return count


def status_of(home: Path, pid: int) -> tuple[str, int]:
    """State and count of the buffer with this process id."""
    try:
        status = json.loads((home / "capture" / "status.json").read_text())
    except FileNotFoundError:
        return "", 0
    if status["pid"] != pid:
        return "", 0
    return status["sources"]["mqtt"]["state"], status["lines"]["line1"]["captured"]


def start(home: Path, port: int, *at: str) -> subprocess.Popen[bytes]:
    settings = json.dumps({"client_id": "one", "shared_group": "buffers"})
    return subprocess.Popen(
        [sys.executable, "-m", "tests.servers.buffer", home, str(port), "line1", *at],
        env=os.environ | {"PYTHONPATH": ".", "SOURCE_SETTINGS": settings},
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("step", "mqtt_client"),
    [("commit.written", "mqtt5"), ("commit.durable", "paho")],
    indirect=["mqtt_client"],
)
def test_two_buffers_lose_and_double_nothing_when_one_is_killed(tmp_path: Path, step: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    shared = {"client_id": "two", "shared_group": "buffers"}
    sent = numbers(0, 6_000)
    with (
        MosquittoServer(tmp_path / "broker") as server,
        CaptureService(Home(second), plant(server.port, ["line1"], **shared)) as other,
    ):
        # the first commit is that of the new session, the second one holds messages
        killed = start(first, server.port, step, "2")
        until(lambda: status_of(first, killed.pid)[0] == "connected" and subscribed(other))
        publish(server, sent[:3_000])
        assert killed.wait(DEADLINE_S) == -signal.SIGKILL
        publish(server, sent[3_000:])
        until(lambda: captured(other) >= 1_000)
        back = start(first, server.port)
        try:
            until(lambda: status_of(first, back.pid)[1] + captured(other) >= len(sent))
        finally:
            back.send_signal(signal.SIGTERM)
            try:
                assert back.wait(DEADLINE_S) == 0
            finally:
                back.kill()
    here, there = payloads(first), payloads(second)
    assert min(len(here), len(there)) > 1_000
    assert Counter(here + there) == Counter(sent)


def test_a_buffer_joins_and_leaves_a_group_without_loss(tmp_path: Path) -> None:
    with (
        MosquittoServer(tmp_path / "broker") as server,
        CaptureService(Home(tmp_path), plant(server.port, ["line1"])) as service,
    ):
        until(lambda: subscribed(service))
        for n, group in enumerate(("buffers", None, "others")):
            publish(server, numbers(100 * n, 100 * n + 100))
            service.follow(plant(server.port, ["line1"], shared_group=group))
            wanted = "line1/#" if group is None else f"$share/{group}/line1/#"
            until(partial(remembers, tmp_path, wanted))
        publish(server, numbers(300, 400))
        until(lambda: captured(service) == 400)
    assert payloads(tmp_path) == numbers(0, 400)


def test_a_group_takes_no_message_that_was_retained_before(tmp_path: Path) -> None:
    with MosquittoServer(tmp_path / "broker") as server:
        publish(server, [b"old"], "-r")
        shared = plant(server.port, ["line1"], shared_group="buffers")
        with CaptureService(Home(tmp_path), shared) as service:
            until(lambda: subscribed(service))
            publish(server, [b"new"], "-r")
            until(lambda: captured(service) >= 1)
    assert payloads(tmp_path) == [b"new"]
