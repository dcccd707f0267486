import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from iiot_platform.demo.broker import Broker
from iiot_platform.demo.mqtt_packets import matches
from iiot_platform.demo.ports import answers, any_free_port

TIMEOUT_S = 60.0
V5 = MQTTProtocolVersion.MQTTv5
V311 = MQTTProtocolVersion.MQTTv311


def until(seen: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not seen():
        assert time.monotonic() < deadline, f"{what}: not within {TIMEOUT_S} s"
        time.sleep(0.01)


def serve(broker: Broker) -> Iterator[int]:
    port, loop, stopping = any_free_port(), asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(broker.serve(port, stopping=stopping))
    )
    thread.start()
    until(lambda: answers(port), "broker")
    yield port
    loop.call_soon_threadsafe(stopping.set)
    thread.join(TIMEOUT_S)
    loop.close()
    assert not thread.is_alive()


@pytest.fixture
def port() -> Iterator[int]:
    yield from serve(Broker())


class Client:
    """A paho client that acknowledges when it is told to."""

    def __init__(
        self,
        port: int,
        client_id: str = "",
        *,
        protocol: MQTTProtocolVersion = V5,
        window: int = 1_000,
        expiry_s: int = 60,
        clean: bool = False,
    ) -> None:
        self.messages: list[mqtt.MQTTMessage] = []
        self.present: bool | None = None
        self.granted: list[str] = []
        self.ended = ""
        keywords = {} if protocol == V5 else {"clean_session": clean}
        self.paho = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=protocol,
            manual_ack=True,
            reconnect_on_failure=False,
            **keywords,
        )
        self.paho.on_connect = self._connected
        self.paho.on_message = lambda _client, _data, message: self.messages.append(message)
        self.paho.on_subscribe = lambda *a: self.granted.extend(str(code) for code in a[3])
        self.paho.on_disconnect = self._disconnected
        if protocol == V5:
            properties = Properties(PacketTypes.CONNECT)
            properties.ReceiveMaximum = window
            properties.SessionExpiryInterval = expiry_s
            self.paho.connect("127.0.0.1", port, clean_start=clean, properties=properties)
        else:
            self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        until(lambda: self.present is not None, "connection")

    def _connected(self, *arguments: object) -> None:
        self.present = bool(getattr(arguments[2], "session_present", False))

    def _disconnected(self, *arguments: object) -> None:
        self.ended = str(arguments[3])

    def subscribe(self, pattern: str, qos: int = 1) -> None:
        before = len(self.granted)
        self.paho.subscribe(pattern, qos)
        until(lambda: len(self.granted) > before, "subscription")

    def publish(self, topic: str, *payloads: bytes, qos: int = 1) -> None:
        for info in [self.paho.publish(topic, payload, qos) for payload in payloads]:
            info.wait_for_publish(TIMEOUT_S)

    def acknowledge(self) -> None:
        for message in list(self.messages):
            self.paho.ack(message.mid, message.qos)

    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    def expect(self, *payloads: bytes) -> None:
        until(lambda: len(self.messages) >= len(payloads), f"{len(payloads)} messages")
        assert self.payloads() == list(payloads)

    def close(self, *, broken: bool = False) -> None:
        if broken:
            sock = self.paho.socket()
            assert sock is not None
            until(lambda: not self.paho.want_write(), "what is still to be written")
            sock.shutdown(socket.SHUT_RDWR)
        else:
            self.paho.disconnect()
        until(lambda: self.ended, "end of the connection")
        self.paho.loop_stop()


@pytest.mark.parametrize("protocol", [V5, V311])
@pytest.mark.parametrize("qos", [0, 1])
def test_messages_arrive_in_order(port: int, protocol: MQTTProtocolVersion, qos: int) -> None:
    reader = Client(port, "reader", protocol=protocol, clean=True)
    writer = Client(port, "writer", protocol=protocol, clean=True)
    reader.subscribe("line1/#")
    sent = [b"%d" % i * (1 + 97 * i) for i in range(200)]

    writer.publish("line1/press/oil", *sent, qos=qos)
    writer.publish("line2/press/oil", b"of another line")

    reader.expect(*sent)
    assert {message.qos for message in reader.messages} == {qos}
    reader.close()
    writer.close()


@pytest.mark.parametrize("protocol", [V5, V311])
def test_a_session_keeps_what_comes_meanwhile(port: int, protocol: MQTTProtocolVersion) -> None:
    reader = Client(port, "reader", protocol=protocol)
    reader.subscribe("line1/#")
    reader.close(broken=True)
    writer = Client(port, clean=True)

    writer.publish("line1/a/b", b"1", b"2", b"3")
    again = Client(port, "reader", protocol=protocol)

    assert again.present
    again.expect(b"1", b"2", b"3")
    again.close()
    writer.close()


def test_what_is_not_acknowledged_comes_again_marked(port: int) -> None:
    reader = Client(port, "reader")
    reader.subscribe("line1/#")
    writer = Client(port, clean=True)
    writer.publish("line1/a/b", b"1", b"2")
    reader.expect(b"1", b"2")
    reader.paho.ack(reader.messages[0].mid, 1)
    reader.close(broken=True)

    again = Client(port, "reader")

    again.expect(b"2")
    assert again.messages[0].dup
    again.acknowledge()
    again.close(broken=True)
    third = Client(port, "reader")
    writer.publish("line1/a/b", b"3")
    third.expect(b"3")
    third.close()
    writer.close()


def test_a_window_is_kept(port: int) -> None:
    reader = Client(port, "reader", window=5)
    reader.subscribe("line1/#")
    writer = Client(port, clean=True)
    writer.publish("line1/a/b", *(b"%d" % i for i in range(12)))

    until(lambda: len(reader.messages) == 5, "the window")
    time.sleep(0.1)
    assert len(reader.messages) == 5

    reader.acknowledge()
    until(lambda: len(reader.messages) == 10, "the next window")
    reader.close()
    writer.close()


def test_a_session_without_expiry_ends_with_its_connection(port: int) -> None:
    reader = Client(port, "reader", expiry_s=0)
    reader.subscribe("line1/#")
    reader.close(broken=True)

    again = Client(port, "reader", expiry_s=0)

    assert again.present is False
    again.close()


def test_a_client_takes_its_session_over(port: int) -> None:
    first = Client(port, "reader")
    first.subscribe("line1/#")

    second = Client(port, "reader")

    until(lambda: first.ended, "end of the first")
    assert first.ended == "Session taken over"
    assert second.present
    first.paho.loop_stop()
    second.close()


def test_a_full_queue_makes_publishers_wait_and_drops_nothing() -> None:
    for port in serve(Broker(queue_bytes=10_000)):
        reader = Client(port, "reader", window=1)
        reader.subscribe("line1/#")
        writer = Client(port, clean=True)
        infos = [writer.paho.publish("line1/a/b", bytes(100_000), 1) for _ in range(40)]
        until(lambda seen=reader.messages: len(seen) == 1, "the first")
        time.sleep(0.2)
        assert not all(info.is_published() for info in infos)

        def all_taken(client: Client = reader) -> bool:
            client.paho.ack(client.messages[-1].mid, 1)
            return len(client.messages) == 40

        until(all_taken, "everything")
        for info in infos:
            info.wait_for_publish(TIMEOUT_S)
        reader.close()
        writer.close()


@pytest.mark.parametrize(
    ("pattern", "topic", "covered"),
    [
        ("line1/#", "line1/press/oil", True),
        ("line1/#", "line1", True),
        ("line1/#", "line10/press", False),
        ("+/press/+", "line1/press/oil", True),
        ("+/press/+", "line1/press/oil/x", False),
        ("#", "$SYS/load", False),
        ("line1/press", "line1/press", True),
    ],
)
def test_filters_cover_topics(pattern: str, topic: str, covered: bool) -> None:  # noqa: FBT001 - a case
    assert matches(pattern, topic) is covered


@pytest.mark.parametrize(
    "bytes_sent", [b"\x30\x03\x00\x01a", b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\xff\x7f"]
)
def test_what_is_no_mqtt_ends_the_connection_alone(port: int, bytes_sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as stranger:
        stranger.sendall(bytes_sent)
        while stranger.recv(100):
            pass
    client = Client(port, clean=True)
    client.close()
