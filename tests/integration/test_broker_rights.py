"""Users, rights and encryption of the shipped broker."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from tests.servers.stack import Stack

ANSWER_S = 60.0
_NOT_AUTHORIZED = 0x87
_FAILURE = 0x80
NCMD = "spBv1.0/Plant1/NCMD/Press"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("broker"))
    stack.prepare()
    stack.start_broker()
    try:
        stack.wait_until_well("mosquitto", 60.0)
        yield stack
    finally:
        stack.kill()


class Asked:
    """One client, and what the broker answers it."""

    def __init__(self, stack: Stack, user: str, password: str, *, inside: int = 8883) -> None:
        self.heard = threading.Semaphore(0)
        self._answered = threading.Event()
        self._answer: ReasonCode | None = None
        self._client = Client(
            CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, client_id=user
        )
        self._client.username_pw_set(user, password)
        if inside == 8883:
            ca = stack.folder / "secrets" / "ca.pem"
            self._client.tls_set_context(ssl.create_default_context(cafile=str(ca)))
        self._client.on_connect = lambda _c, _u, _f, reason, _p: self._set(reason)
        self._client.on_message = lambda *_: self.heard.release()
        self._client.on_publish = lambda _c, _u, _m, reason, _p: self._set(reason)
        self._client.on_subscribe = lambda _c, _u, _m, reasons, _p: self._set(reasons[0])
        self._client.connect("127.0.0.1", stack.port("mosquitto", inside))
        self._client.loop_start()
        self.connected = self._next()

    def publish(self, topic: str) -> int:
        self._client.publish(topic, b"{}", qos=1)
        return self._next()

    def subscribe(self, topic: str) -> int:
        self._client.subscribe(topic, qos=1)
        return self._next()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _set(self, reason: ReasonCode) -> None:
        self._answer = reason
        self._answered.set()

    def _next(self) -> int:
        assert self._answered.wait(ANSWER_S)
        self._answered.clear()
        assert self._answer is not None
        return int(self._answer.value)


def password(stack: Stack, user: str) -> str:
    return (stack.folder / "secrets" / f"mqtt_{user}").read_text(encoding="utf-8").strip()


@pytest.mark.parametrize(
    ("user", "allowed", "refused"),
    [
        ("plc", "line1/press/oil", "iiot/alerts/line1/x"),
        ("alerts", "iiot/alerts/line1/x", "line1/press/oil"),
        ("buffer", None, "line1/press/oil"),
        ("buffer", None, "iiot/alerts/line1/x"),
        ("buffer", None, "$SYS/broker/uptime"),
        ("buffer", None, NCMD),
        ("health", None, "line1/press/oil"),
    ],
)
def test_who_may_publish_what(stack: Stack, user: str, allowed: str | None, refused: str) -> None:
    asked = Asked(stack, user, password(stack, user))
    try:
        assert asked.connected == 0
        if allowed is not None:
            assert asked.publish(allowed) in {0, 0x10}  # 0x10: nobody has subscribed
        assert asked.publish(refused) == _NOT_AUTHORIZED
    finally:
        asked.close()


def test_the_buffer_alone_reads_what_plcs_say(stack: Stack) -> None:
    # mosquitto grants every subscription and withholds what its user may not read
    asked = {
        user: Asked(stack, user, password(stack, user))
        for user in ("buffer", "health", "plc", "alerts")
    }
    try:
        for one in asked.values():
            assert one.subscribe("line1/#") < _FAILURE
        for _ in range(2):  # what is answered second was routed after the first
            assert asked["plc"].publish("line1/press/oil") == 0
        assert asked["buffer"].heard.acquire(timeout=ANSWER_S)
        assert not asked["health"].heard.acquire(blocking=False)
        assert not asked["plc"].heard.acquire(blocking=False)
        assert not asked["alerts"].heard.acquire(blocking=False)
    finally:
        for one in asked.values():
            one.close()


def test_sparkplug_nodes_hear_what_they_are_asked(stack: Stack) -> None:
    asked = {user: Asked(stack, user, password(stack, user)) for user in ("plc", "alerts")}
    try:
        for one in asked.values():
            assert one.subscribe("spBv1.0/#") < _FAILURE
        for topic in (NCMD, NCMD.replace("NCMD", "NDATA")):
            for _ in range(2):
                assert asked["plc"].publish(topic) in {0, 0x10}
        for _ in range(2):
            assert asked["plc"].heard.acquire(timeout=ANSWER_S)
        assert not asked["plc"].heard.acquire(blocking=False)  # no data of others
        assert not asked["alerts"].heard.acquire(blocking=False)
    finally:
        for one in asked.values():
            one.close()


def test_nobody_comes_in_without_the_password(stack: Stack) -> None:
    asked = Asked(stack, "buffer", "wrong")
    asked.close()
    assert asked.connected == _NOT_AUTHORIZED


def test_the_certificate_is_of_the_plants_authority(stack: Stack, tmp_path: Path) -> None:
    other = Stack(tmp_path)
    other.prepare()
    address = ("127.0.0.1", stack.port("mosquitto", 8883))
    for folder, known in ((stack.folder, True), (other.folder, False)):
        context = ssl.create_default_context(cafile=str(folder / "secrets" / "ca.pem"))
        with contextlib.closing(socket.create_connection(address, ANSWER_S)) as plain:
            if known:
                context.wrap_socket(plain, server_hostname="127.0.0.1").close()
                continue
            with pytest.raises(ssl.SSLCertVerificationError):
                context.wrap_socket(plain, server_hostname="127.0.0.1")
