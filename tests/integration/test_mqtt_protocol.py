"""A broker that does as its script says, also what a real one never does."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import mqtt5
import pytest
from mqtt5 import ConnAckReasonCode, DisconnectReasonCode, QoS, SubAckReasonCode

from buffer_service.sources.mqtt_client import Message
from buffer_service.sources.mqtt_connection import Connection, Wanted
from iiot_platform.config.plant import MqttSource
from tests.servers.buffer import MQTT_CLIENTS

DEADLINE_S = 60.0
WELCOME = mqtt5.ConnAckPacket().write()


def publish(packet_id: int, *, dup: bool = False, payload: bytes = b"x") -> bytes:
    return mqtt5.PublishPacket(
        "line1/a", payload, qos=QoS.AT_LEAST_ONCE, packet_id=packet_id, duplicate=dup
    ).write()


class ScriptedBroker:
    """One connection, in which every byte that comes and goes is the test's."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE_S)
        self.port: int = self._listener.getsockname()[1]
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._listener.close()
        self._peer.close()

    def welcome(self, answer: bytes = WELCOME) -> mqtt5.Packet:
        self._peer, _ = self._listener.accept()
        self._peer.settimeout(DEADLINE_S)
        packet = self.receive()
        self.send(answer)
        return packet

    def send(self, *packets: bytes) -> None:
        self._peer.sendall(b"".join(packets))

    def receive(self) -> mqtt5.Packet:
        while True:
            try:
                packet, size = mqtt5.read(memoryview(self._unread))
            except IndexError:
                data = self._peer.recv(65_536)
                if not data:
                    raise EOFError from None
                self._unread += data
                continue
            self._unread = self._unread[size:]
            return packet


class Buffer:
    """The connection under test, in a thread, with what it has told."""

    def __init__(
        self, port: int, filters: tuple[str, ...] = ("line1/#",), **source: object
    ) -> None:
        self.messages: list[Message] = []
        self.subscribed: list[tuple[list[str], dict[str, str]]] = []
        self.unsubscribed: list[str] = []
        self.ended = ""
        self.is_full = False
        settings = {"port": port, "client": "mqtt5", "receive_maximum": 20, **source}
        self.connection = Connection(
            MqttSource.model_validate(settings),
            lambda: Wanted(filters, ("old/#",)),
            on_connected=lambda _present: self.connection.subscribe(),
            on_messages=self.messages.extend,
            on_subscribed=lambda taken, refused: self.subscribed.append(
                (list(taken), dict(refused))
            ),
            on_unsubscribed=self.unsubscribed.extend,
            is_full=lambda: self.is_full,
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.ended = self.connection.run()

    def reason(self) -> str:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "not in time"
        return self.ended

    def stop(self) -> None:
        self.connection.stop()
        self._thread.join(DEADLINE_S)


@contextmanager
def connected(answer: bytes = WELCOME, **source: object) -> Iterator[tuple[ScriptedBroker, Buffer]]:
    """A buffer that has subscribed, and a broker that has not answered it."""
    with ScriptedBroker() as broker:
        buffer = Buffer(broker.port, **source)  # type: ignore[arg-type]  # the test's own words
        try:
            broker.welcome(answer)
            assert isinstance(broker.receive(), mqtt5.SubscribePacket)
            assert isinstance(broker.receive(), mqtt5.UnsubscribePacket)
            yield broker, buffer
        finally:
            buffer.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def test_it_says_who_it_is_and_what_it_takes() -> None:
    with ScriptedBroker() as broker:
        source = {"username": "me", "password": "päss", "session_expiry_s": 77, "keepalive_s": 9}
        buffer = Buffer(broker.port, **source)  # type: ignore[arg-type]  # as above
        packet = broker.welcome()
        assert isinstance(packet, mqtt5.ConnectPacket)
        assert (packet.client_id, packet.username) == ("iiot-buffer", "me")
        assert packet.password == "päss".encode()
        assert (packet.clean_start, packet.keep_alive) == (False, 9)
        assert (packet.session_expiry_interval, packet.receive_max) == (77, 20)
        assert (packet.topic_alias_max, packet.max_packet_size) == (0, None)
        subscribe, unsubscribe = broker.receive(), broker.receive()
        assert isinstance(subscribe, mqtt5.SubscribePacket)
        assert isinstance(unsubscribe, mqtt5.UnsubscribePacket)
        granted = SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE
        broker.send(
            mqtt5.SubAckPacket(subscribe.packet_id, [granted]).write(),
            mqtt5.UnsubAckPacket(
                unsubscribe.packet_id, [mqtt5.UnsubAckReasonCode.NO_SUBSCRIPTION_EXISTED]
            ).write(),
        )
        until(lambda: buffer.subscribed == [(["line1/#"], {})])
        until(lambda: buffer.unsubscribed == ["old/#"])
        broker.send(publish(3), publish(1, dup=True))
        until(lambda: len(buffer.messages) == 2)
        buffer.connection.acknowledge([3, 1])
        buffer.connection.stop()
        acknowledged = [broker.receive(), broker.receive()]
        assert [one.packet_id for one in acknowledged if isinstance(one, mqtt5.PubAckPacket)] == [
            3,
            1,
        ]
        goodbye = broker.receive()
        assert isinstance(goodbye, mqtt5.DisconnectPacket)
        assert goodbye.reason_code == DisconnectReasonCode.NORMAL_DISCONNECTION
        assert buffer.reason() == "stopped"


BAD = {
    "rubbish": (b"\x00\x00", "MALFORMED_PACKET", "PacketType"),
    "a length that never ends": (b"\x32\xff\xff\xff\xff\x01", "MALFORMED_PACKET", "four bytes"),
    "flags": (b"\xd1\x00", "MALFORMED_PACKET", "flags"),
    "a message cut short": (b"\x32\x05\x00\x09a\x00\x01", "MALFORMED_PACKET", "cut short"),
    "QoS 3": (b"\x36\x06\x00\x01a\x00\x01\x00", "MALFORMED_PACKET", "QoS 3"),
    "QoS 2": (b"\x34\x06\x00\x01a\x00\x01\x00", "QOS_NOT_SUPPORTED", "another program"),
    "DUP at QoS 0": (b"\x38\x04\x00\x01a\x00", "MALFORMED_PACKET", "DUP at QoS 0"),
    "packet id 0": (b"\x32\x06\x00\x01a\x00\x00\x00", "PROTOCOL_ERROR", "packet id 0"),
    "a topic alias": (b"\x30\x06\x00\x00\x03\x23\x00\x05", "TOPIC_ALIAS_INVALID", "aliases"),
    "a wildcard": (b"\x30\x04\x00\x01#\x00", "TOPIC_NAME_INVALID", "topic b'#'"),
    "NUL": (b"\x30\x04\x00\x01\x00\x00", "TOPIC_NAME_INVALID", "topic b'\\x00'"),
    "AUTH": (b"\xf0\x02\x18\x00", "PROTOCOL_ERROR", "AUTH"),
    "CONNACK again": (WELCOME, "PROTOCOL_ERROR", "CONNACK"),
    "PUBREL": (b"\x62\x02\x00\x01", "PROTOCOL_ERROR", "PUBREL"),
    "PINGREQ": (b"\xc0\x00", "PROTOCOL_ERROR", "PINGREQ"),
    "SUBACK to nobody": (b"\x90\x04\x99\x99\x00\x01", "PROTOCOL_ERROR", "SUBACK"),
    "SUBACK with too many": (b"\x90\x05\x00\x01\x00\x01\x01", "PROTOCOL_ERROR", "2 answers to 1"),
    "text that is no UTF-8": (
        b"\x90\x08\x00\x01\x04\x1f\x00\x01\xff\x01",
        "MALFORMED_PACKET",
        "UTF-8",
    ),
}


@pytest.mark.parametrize(("sent", "code", "word"), BAD.values(), ids=BAD)
# mqtt5 panics, and says so, where a broker's own text is not UTF-8
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_the_protocol_forbids_ends_the_connection(sent: bytes, code: str, word: str) -> None:
    with connected() as (broker, buffer):
        broker.send(publish(1), publish(2)[:-4])
        until(lambda: len(buffer.messages) == 1)
        broker.send(publish(2)[-4:], sent, publish(3))
        goodbye = broker.receive()
        assert isinstance(goodbye, mqtt5.DisconnectPacket)
        assert goodbye.reason_code.name == code
        assert word in buffer.reason()
        # what stood before it counts, what stands behind it does not
        assert [one.packet_id for one in buffer.messages] == [1, 2]


def test_a_message_before_connack_is_refused() -> None:
    with ScriptedBroker() as broker:
        buffer = Buffer(broker.port)
        broker.welcome(publish(1) + WELCOME)
        assert isinstance(broker.receive(), mqtt5.DisconnectPacket)
        assert "PUBLISH before CONNACK" in buffer.reason()
        assert not buffer.messages


def test_more_than_the_window_is_borne_with() -> None:
    with connected() as (broker, buffer):
        broker.send(*[publish(n, dup=True) for n in range(1, 61)])
        broker.send(*[publish(n) for n in range(100, 140)])
        until(lambda: len(buffer.messages) == 100)
        buffer.connection.acknowledge([one.packet_id for one in buffer.messages])
        for message in buffer.messages:
            acknowledged = broker.receive()
            assert isinstance(acknowledged, mqtt5.PubAckPacket)
            assert acknowledged.packet_id == message.packet_id


def test_a_message_larger_than_any_read_comes_in_pieces() -> None:
    payload = bytes(range(256)) * 4_000
    with connected() as (broker, buffer):
        packet = publish(1, payload=payload)
        for at in range(0, len(packet), 100_000):
            broker.send(packet[at : at + 100_000])
        broker.send(publish(2))
        until(lambda: len(buffer.messages) == 2)
        assert buffer.messages[0].payload == payload


def test_a_refusal_is_told_in_the_words_of_the_standard() -> None:
    refusal = mqtt5.ConnAckPacket(reason_code=ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD).write()
    with ScriptedBroker() as broker:
        buffer = Buffer(broker.port)
        broker.welcome(refusal)
        assert "Bad user name or password; check username" in buffer.reason()
    with connected() as (broker, buffer):
        code = DisconnectReasonCode.SESSION_TAKEN_OVER
        broker.send(publish(1), mqtt5.DisconnectPacket(reason_code=code).write(), publish(2))
        assert "Session taken over; another client" in buffer.reason()
        assert len(buffer.messages) == 1


def test_limits_of_the_broker_are_kept() -> None:
    filters = ("line1/#", "line2/#", "line3/#", "$share/us/line4/#")
    welcome = mqtt5.ConnAckPacket(max_packet_size=35, shared_subscription_available=False).write()
    with ScriptedBroker() as broker:
        buffer = Buffer(broker.port, filters)
        broker.welcome(welcome)
        try:
            first, second = broker.receive(), broker.receive()
            for packet in (first, second):
                assert isinstance(packet, mqtt5.SubscribePacket)
                assert len(packet.write()) <= 35
                granted = [SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE] * len(packet.topic_filters)
                broker.send(mqtt5.SubAckPacket(packet.packet_id, granted).write())
            until(lambda: bool(buffer.subscribed))
            (answered,) = buffer.subscribed
            refused = {filters[3]: "Shared subscriptions not supported"}
            assert answered == (list(filters[:3]), refused)
        finally:
            buffer.stop()


def test_a_silent_broker_is_asked_and_then_given_up() -> None:
    welcome = mqtt5.ConnAckPacket(server_keep_alive=2).write()
    with connected(welcome, keepalive_s=60) as (broker, buffer):
        assert isinstance(broker.receive(), mqtt5.PingReqPacket)
        broker.send(mqtt5.PingRespPacket().write())
        assert isinstance(broker.receive(), mqtt5.PingReqPacket)
        goodbye = broker.receive()
        assert isinstance(goodbye, mqtt5.DisconnectPacket)
        assert goodbye.reason_code == DisconnectReasonCode.KEEP_ALIVE_TIMEOUT
        assert "no answer for" in buffer.reason()


@pytest.mark.parametrize("client", MQTT_CLIENTS)
def test_a_full_buffer_reads_nothing_and_stays_alive(client: str) -> None:
    welcome = mqtt5.ConnAckPacket().write()
    with connected(welcome, client=client, keepalive_s=2) as (broker, buffer):
        broker.send(publish(1))
        until(lambda: len(buffer.messages) == 1)
        buffer.is_full = True
        asked = 0
        while asked < 3:  # what it is asked would end the connection of one who reads
            asked += isinstance(broker.receive(), mqtt5.PingReqPacket)
            broker.send(publish(2 + asked))
        buffer.connection.acknowledge([1])
        while not isinstance(acknowledged := broker.receive(), mqtt5.PubAckPacket):
            assert isinstance(acknowledged, mqtt5.PingReqPacket)
        assert len(buffer.messages) <= 2  # one may have been under way to it
        buffer.is_full = False
        broker.send(mqtt5.PingRespPacket().write())
        until(lambda: len(buffer.messages) == 4)
        assert not buffer.ended
