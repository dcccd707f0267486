"""The shipped broker configuration keeps what it acknowledged."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.servers.ports import free_port

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "mosquitto" / "mosquitto.conf"
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
COUNT = 3_000
DEADLINE_S = 60.0


@pytest.fixture
def config(tmp_path: Path) -> tuple[Path, int]:
    """The shipped file with port, folder and users of this test."""
    for program in ("mosquitto", "mosquitto_passwd"):
        if shutil.which(program, path=PATH) is None:
            reason = f"no {program} on this machine: apt-get install mosquitto"
            if os.environ.get("CI", "").lower() in {"1", "true"}:
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
    port = free_port()
    users = tmp_path / "passwords"
    subprocess.run(
        [shutil.which("mosquitto_passwd", path=PATH) or "", "-b", "-c", users, "iiot", "secret"],
        check=True,
        capture_output=True,
    )
    text = CONFIG.read_text(encoding="utf-8")
    for shipped, here in (
        ("listener 1883", f"listener {port} 127.0.0.1\nuser {getpass.getuser()}"),
        ("/mosquitto/data/", f"{tmp_path}/"),
        ("password_file /run/secrets/mqtt_passwords", f"password_file {users}"),
        ("acl_file /mosquitto/config/acl", ""),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    # the encrypted listener and the rights are looked at by the test of the whole stack
    encrypted = text[text.index("listener 8883") : text.index("# users of both")]
    text = text.replace(encrypted, "")
    file = tmp_path / "mosquitto.conf"
    file.write_text(text, encoding="utf-8")
    return file, port


@contextlib.contextmanager
def broker(file: Path, port: int) -> Iterator[None]:
    process = subprocess.Popen(
        [shutil.which("mosquitto", path=PATH) or "", "-c", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "the broker refuses the configuration"
            assert time.monotonic() < until
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_S)


@contextlib.contextmanager
def client(name: str, port: int, seen: list[bytes] | None = None) -> Iterator[mqtt.Client]:
    connecting = Properties(PacketTypes.CONNECT)
    connecting.SessionExpiryInterval = 3_600
    connection = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
    connection.username_pw_set("iiot", "secret")
    if seen is not None:
        connection.on_message = lambda _client, _data, message: seen.append(message.payload)
    connection.connect("127.0.0.1", port, clean_start=False, properties=connecting)
    connection.loop_start()
    try:
        yield connection
    finally:
        connection.disconnect()
        connection.loop_stop()


def test_nothing_acknowledged_is_lost_while_the_subscriber_and_then_the_broker_are_away(
    config: tuple[Path, int],
) -> None:
    file, port = config
    seen: list[bytes] = []
    with broker(file, port):
        with client("buffer", port, seen) as subscriber:
            granted: list[int] = []
            subscriber.on_subscribe = lambda *arguments: granted.append(len(arguments))
            subscriber.subscribe("line1/#", qos=1)
            wait(lambda: bool(granted))
        with client("plc", port) as publisher:
            sent = [publisher.publish("line1/press/temp", b"%d" % i, qos=1) for i in range(COUNT)]
            for message in sent:
                message.wait_for_publish(DEADLINE_S)
                assert message.is_published()
    with broker(file, port), client("buffer", port, seen):
        wait(lambda: len(set(seen)) == COUNT)
    assert sorted(set(map(int, seen))) == list(range(COUNT))


def wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
