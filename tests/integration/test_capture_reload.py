"""A plant that changes while its buffer runs, or between two runs of one session."""

import json
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from buffer_service.service import CaptureService
from iiot_platform.core.paths import Home
from tests.servers.buffer import MQTT_CLIENTS, plant
from tests.servers.capture_reader import sealed_records
from tests.servers.mosquitto import MosquittoServer, program

pytestmark = pytest.mark.usefixtures("mqtt_client")
DEADLINE_S = 60.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def publish(server: MosquittoServer, topic: str, payloads: list[bytes]) -> None:
    subprocess.run(
        [program("mosquitto_pub"), "-p", str(server.port), "-t", topic, "-l", "-q", "1"],
        input=b"".join(payload + b"\n" for payload in payloads),
        check=True,
        timeout=DEADLINE_S,
    )


def numbers(start: int, stop: int) -> list[bytes]:
    return [b'{"n":%d}' % n for n in range(start, stop)]


def source(service: CaptureService) -> dict[str, Any]:
    found: dict[str, Any] = service.statistics()["sources"]["mqtt"]
    return found


def connected(service: CaptureService) -> Callable[[], bool]:
    return lambda: source(service)["state"] == "connected"


def captured(service: CaptureService, line: str) -> int:
    count: int = service.statistics()["lines"].get(line, {"captured": -1})["captured"]
    return count


def payloads(home: Path, line: str) -> list[bytes]:
    return [record.payload for record in sealed_records(Home(home), line)]


def subscribed(home: Path) -> set[str]:
    """What the buffer remembers of its session; nothing before the first."""
    try:
        text = (home / "capture" / "subscriptions-mqtt.json").read_text()
    except FileNotFoundError:
        return set()
    return set(json.loads(text)["filters"])


def test_lines_come_and_go_while_the_buffer_runs(tmp_path: Path) -> None:
    with (
        MosquittoServer(tmp_path / "broker") as server,
        CaptureService(Home(tmp_path), plant(server.port, ["line1", "line2"])) as service,
    ):
        until(connected(service))
        publish(server, "line1/m/a", numbers(0, 100))
        publish(server, "line2/m/a", numbers(0, 10))
        until(lambda: captured(service, "line2") == 10)
        service.follow(plant(server.port, ["line1", "line3"]))
        until(lambda: subscribed(tmp_path) == {"line1/#", "line3/#"})
        assert source(service)["connects"] == 1
        publish(server, "line2/m/a", numbers(10, 20))
        publish(server, "line3/m/a", numbers(0, 10))
        publish(server, "line1/m/a", numbers(100, 200))
        until(lambda: captured(service, "line1") == 200 and captured(service, "line3") == 10)
        assert source(service)["unmatched"] == 0
        assert set(service.statistics()["lines"]) == {"line1", "line3"}
        service.follow(plant(server.port, ["line1", "line2", "line3"]))
        until(lambda: source(service)["subscribed"] == 3)
        publish(server, "line2/m/a", numbers(20, 30))
        until(lambda: captured(service, "line2") == 20)
    assert payloads(tmp_path, "line1") == numbers(0, 200)
    assert payloads(tmp_path, "line2") == [*numbers(0, 10), *numbers(20, 30)]
    assert payloads(tmp_path, "line3") == numbers(0, 10)


def test_a_session_takes_up_the_lines_that_changed_while_it_slept(tmp_path: Path) -> None:
    with MosquittoServer(tmp_path / "broker") as server:
        with CaptureService(Home(tmp_path), plant(server.port, ["line1", "line2"])) as service:
            until(connected(service))
        publish(server, "line1/m/a", numbers(0, 500))
        publish(server, "line2/m/a", numbers(0, 50))
        with CaptureService(Home(tmp_path), plant(server.port, ["line1", "line3"])) as service:
            until(connected(service))
            until(lambda: subscribed(tmp_path) == {"line1/#", "line3/#"})
            publish(server, "line2/m/a", numbers(50, 60))
            publish(server, "line3/m/a", numbers(0, 10))
            publish(server, "line1/m/a", numbers(500, 510))
            until(lambda: captured(service, "line1") == 510 and captured(service, "line3") == 10)
            assert source(service)["unmatched"] == 0
    assert payloads(tmp_path, "line1") == numbers(0, 510)
    assert payloads(tmp_path, "line2") == numbers(0, 50)
    assert payloads(tmp_path, "line3") == numbers(0, 10)


def test_a_source_whose_settings_change_loses_nothing(tmp_path: Path) -> None:
    sent = numbers(0, 6_000)
    with (
        MosquittoServer(tmp_path / "broker") as server,
        CaptureService(Home(tmp_path), plant(server.port, ["line1"])) as service,
    ):
        until(connected(service))
        for n, window in enumerate((100, 400, 200)):
            command = [program("mosquitto_pub"), "-p", str(server.port), "-t", "line1/m/a"]
            publisher = subprocess.Popen([*command, "-l", "-q", "1"], stdin=subprocess.PIPE)
            part = sent[2_000 * n : 2_000 * (n + 1)]
            assert publisher.stdin is not None
            publisher.stdin.write(b"".join(payload + b"\n" for payload in part))
            publisher.stdin.close()
            service.follow(plant(server.port, ["line1"], receive_maximum=window))
            assert publisher.wait(DEADLINE_S) == 0
        until(lambda: captured(service, "line1") >= len(sent))
    found = payloads(tmp_path, "line1")
    assert len(found) == len(sent)
    assert found == sent


def test_a_source_that_comes_later_is_captured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with (
        MosquittoServer(tmp_path / "a") as first,
        MosquittoServer(tmp_path / "b") as second,
    ):
        one = plant(first.port, ["line1"])
        other = plant(second.port, ["line1"], name="other").sources[0]
        line = one.lines[0].model_copy(update={"name": "line9", "source": "other"})
        both = one.model_copy(
            update={"sources": (*one.sources, other), "lines": (*one.lines, line)}
        )
        with CaptureService(Home(tmp_path), one) as service:
            until(connected(service))
            service.follow(both)
            until(lambda: "other" in service.statistics()["sources"])
            until(lambda: service.statistics()["sources"]["other"]["state"] == "connected")
            publish(second, "line9/m/a", numbers(0, 10))
            publish(first, "line1/m/a", numbers(0, 10))
            until(lambda: captured(service, "line9") == captured(service, "line1") == 10)
            assert source(service)["connects"] == 1
            service.follow(one)
            until(lambda: set(service.statistics()["sources"]) == {"mqtt"})
    assert payloads(tmp_path, "line9") == numbers(0, 10)
    assert caplog.text.count("the plant has changed") == 2


def queue_of(server: MosquittoServer, client_id: str) -> tuple[bool, list[bytes]]:
    """Whether the broker has a session, and what waits in it."""
    found: list[bytes] = []
    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5)
    present: list[bool] = []
    client.on_connect = lambda _c, _d, flags, _code, _props: present.append(flags.session_present)
    client.on_message = lambda _c, _d, message: found.append(bytes(message.payload))
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 60
    client.connect("127.0.0.1", server.port, clean_start=False, properties=properties)
    client.loop_start()
    until(lambda: bool(present))
    if present[0]:
        publish(server, "line1/m/a", [b"last"])
        until(lambda: b"last" in found)
    client.disconnect()
    client.loop_stop()
    return present[0], found


@pytest.mark.parametrize("restarts", [False, True])
def test_a_session_that_is_left_is_named_with_what_ends_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, restarts: bool
) -> None:
    with MosquittoServer(tmp_path / "broker") as server:
        old, new = (plant(server.port, ["line1"], client_id=name) for name in ("old", "new"))
        with CaptureService(Home(tmp_path), old) as service:
            until(connected(service))
            until(lambda: subscribed(tmp_path) == {"line1/#"})
            if not restarts:
                service.follow(new)
                until(lambda: "client id 'old'" in caplog.text)
                until(connected(service))
        with CaptureService(Home(tmp_path), new) as service:
            until(connected(service))
            until(lambda: source(service)["subscribed"] == 1)
            publish(server, "line1/m/a", numbers(0, 5))
            until(lambda: captured(service, "line1") >= 5)
        told = [line for line in caplog.messages if "client id 'old'" in line]
        assert len(told) == (1 if restarts else 2)
        (command,) = re.findall(r"mosquitto_sub (.* -E), with", told[-1])
        assert queue_of(server, "old") == (True, [*numbers(0, 5), b"last"])
        subprocess.run([program("mosquitto_sub"), *command.split()], check=True, timeout=20)
        assert queue_of(server, "old") == (False, [])


@pytest.mark.parametrize("mqtt_client", MQTT_CLIENTS[:1], indirect=True)
@pytest.mark.timeout(120)
def test_an_edit_of_the_plant_file_reaches_a_running_buffer(tmp_path: Path) -> None:
    home, file = Home(tmp_path / "home"), tmp_path / "plant.yaml"
    status_file = home.capture / "status.json"

    def status() -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(status_file.read_text())
        except FileNotFoundError:
            return {}
        return found

    def count(line: str) -> int:
        lines = status().get("lines", {})
        return int(lines[line]["captured"]) if line in lines else -1

    with MosquittoServer(tmp_path / "broker") as server:
        source = f"sources: [{{port: {server.port}}}]\n"
        file.write_text(f"{source}lines: [line1]\n")
        command = [sys.executable, "-m", "buffer_service", "--plant", file, "--home", home.root]
        buffer = subprocess.Popen(command)
        try:
            until(lambda: count("line1") == 0)
            file.write_text(f"{source}lines: [line1, line2]\n")
            until(lambda: count("line2") == 0)
            until(lambda: subscribed(home.root) == {"line1/#", "line2/#"})
            file.write_text(f"{source}lines: [line1, line2, line2]\n")
            until(lambda: "each name stands once" in status()["plant_problem"])
            file.write_text(f"{source}lines: [line1, line2, line3]\n")
            buffer.send_signal(signal.SIGHUP)
            until(lambda: count("line3") == 0)
            assert status()["plant_problem"] == ""
            assert buffer.poll() is None
        finally:
            buffer.send_signal(signal.SIGTERM)
            try:
                assert buffer.wait(DEADLINE_S) == 0
            finally:
                buffer.kill()
