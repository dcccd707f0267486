import socket
import ssl
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from buffer_service.delivery import Delivery, Skipped
from buffer_service.sources import mqtt, mqtt_failures
from buffer_service.sources.buffered_socket import BufferedSocket
from buffer_service.sources.mqtt_client import Message
from buffer_service.sources.mqtt_packets import parse_publish
from buffer_service.sources.paho_client import BufferedClient
from iiot_platform.config.plant import MqttSource


def receiver(pressed: list[int] | None = None) -> mqtt.MqttReceiver:
    return mqtt.MqttReceiver(
        MqttSource(receive_maximum=20),
        streams={"plant/": "all", "plant/line1/": "line1"},
        filters=["plant/#"],
        on_pressure=lambda: None if pressed is None else pressed.append(1),
    )


def message(topic: str, packet_id: int = 1, qos: int = 1) -> Message:
    return Message(topic.encode(), b"x", packet_id, qos, retain=False, dup=False)


@given(
    topic=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    payload=st.binary(max_size=300),
    qos=st.sampled_from([0, 1]),
    retain=st.booleans(),
    names=st.integers(0, 40),
)
def test_a_publish_packet_is_read_as_it_was_written(
    topic: str, payload: bytes, qos: int, *, retain: bool, names: int
) -> None:
    properties = Properties(PacketTypes.PUBLISH)
    if names:
        properties.UserProperty = [("name", "value")] * names
    encoded = topic.encode()
    packet_id = (513).to_bytes(2, "big") if qos else b""
    head = len(encoded).to_bytes(2, "big") + encoded + packet_id
    body = bytes(head + properties.pack() + payload)
    command = 0x30 | qos << 1 | retain
    assert parse_publish(command | 8 * qos, body, 0, len(body)) == Message(
        encoded, payload, 513 * qos, qos, retain, bool(qos)
    )


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\5abc", b"\0\1a\0", b"\0\1a\0\1\x05ab"])
def test_a_publish_packet_that_is_cut_short_is_refused(body: bytes) -> None:
    with pytest.raises(IndexError):
        parse_publish(0x32, body, 0, len(body))


def test_the_client_still_calls_what_is_replaced() -> None:
    for name in ("_create_socket", "_handle_publish"):
        assert name in vars(BufferedClient)
        assert callable(getattr(Client, name, None)), f"paho no longer has {name}"


def test_a_buffered_socket_reads_ahead_and_sends_in_bulk() -> None:
    ours, theirs = socket.socketpair()
    buffered = BufferedSocket(ours)
    buffered.setblocking(flag=False)
    with theirs:
        theirs.sendall(b"abcdef")
        assert buffered.recv(1) == b"a"
        assert buffered.readable
        assert (buffered.recv(3), buffered.recv(100)) == (b"bcd", b"ef")
        assert not buffered.readable
        with pytest.raises(BlockingIOError):
            buffered.recv(1)
        assert buffered.send(b"12") + buffered.send(b"34") == 4
        theirs.settimeout(0)
        with pytest.raises(BlockingIOError):
            theirs.recv(10)
        assert buffered.flush()
        assert theirs.recv(10) == b"1234"
        buffered.send(b"last")
        buffered.close()
        assert theirs.recv(10) == b"last"


def test_a_full_peer_keeps_what_was_not_sent() -> None:
    ours, theirs = socket.socketpair()
    buffered = BufferedSocket(ours)
    buffered.setblocking(flag=False)
    with theirs:
        sent = bytes(range(256)) * 20_000
        buffered.send(sent)
        assert not buffered.flush()
        received = b""
        while len(received) < len(sent):
            received += theirs.recv(1_000_000)
            buffered.flush()
        assert received == sent
        buffered.close()


@pytest.mark.parametrize(
    ("topic", "stream"),
    [("plant/line1/m/d", "line1"), ("plant/line10/m/d", "all"), ("plant/line1", "line1")],
)
def test_the_longest_prefix_names_the_line(topic: str, stream: str) -> None:
    source = receiver()
    source._take([message(topic)])
    (event,) = source.drain()
    assert isinstance(event, Delivery)
    assert event.stream == stream


def test_what_no_line_takes_is_counted_and_acknowledged() -> None:
    source = receiver()
    source._take([message("elsewhere/d", 7)])
    source._take([Message(b"\xff", b"x", 8, 1, retain=False, dup=False)])
    events = source.drain()
    assert [event.packet_id for event in events if isinstance(event, Skipped)] == [7, 8]
    assert source.status.counts["unmatched"] == 2


def test_qos_0_is_bounded_until_it_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "QOS0_LIMIT", 3)
    source = receiver()
    for _ in range(5):
        source._take([message("plant/a", 0, 0)])
    events = source.drain()
    assert len(events) == 3
    assert source.status.counts["qos0_dropped"] == 2
    source._take([message("plant/a", 1)])
    assert len(source.drain()) == 1
    source.acknowledge([event.token for event in events])
    source._take([message("plant/a", 0, 0)])
    assert len(source.drain()) == 1


def returning(*qos0: str, **settings: object) -> mqtt.MqttReceiver:
    """A receiver that was away, and to whose lines a session brought messages of QoS 0."""
    source = mqtt.MqttReceiver(
        MqttSource.model_validate(settings),
        streams={"a/": "a", "b/": "b"},
        filters=["a/#", "b/#"],
        on_pressure=lambda: None,
        away_since_ms=1_000,
    )
    source._subscriptions.note_qos0(qos0)
    source._connection = SimpleNamespace(subscribe=lambda: None)  # type: ignore[assignment]  # all it is asked for
    return source


def gaps(source: mqtt.MqttReceiver) -> list[Delivery]:
    return [event for event in source.drain() if isinstance(event, Delivery)]


def test_a_session_that_is_resumed_lacks_what_came_at_qos_0(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = returning("b", "gone")
    assert source.status.since_ms == 1_000  # what yet another run would go by
    source._connected(True)  # noqa: FBT003 - its own signature
    (gap,) = gaps(source)
    assert (gap.stream, gap.record.topic) == ("b", "$gap/mqtt")
    assert b'"begin_ms": 1000' in gap.record.payload
    assert "messages of QoS 0 are missing since 1970" in caplog.text
    source._take([message("a/d", 0, 0)])
    assert source._subscriptions.qos0 == {"a", "b", "gone"}  # until the gap is durable
    source.acknowledge([gap.token])
    source._take([message("a/d", 0, 0)])
    assert source._subscriptions.qos0 == {"a"}


def test_a_broker_that_queues_qos_0_makes_no_gap() -> None:
    for source in (returning("b", qos0_queued=True), returning()):
        source._connected(True)  # noqa: FBT003 - its own signature
        assert not gaps(source)


def test_what_waits_for_the_disk_is_bounded_by_its_size(caplog: pytest.LogCaptureFixture) -> None:
    pressed: list[int] = []
    source = mqtt.MqttReceiver(
        MqttSource(held_bytes=1_000_000),
        streams={"a/": "a"},
        filters=["a/#"],
        on_pressure=lambda: pressed.append(1),
    )
    large = Message(b"a/d", bytes(400_000), 1, 1, retain=False, dup=False)
    for _ in range(2):
        source._take([large, large])
        assert not source._is_full()
        first = source.drain()
        source._take([large])
        assert source._is_full()
        source.acknowledge([event.token for event in first if isinstance(event, Delivery)])
        assert not source._is_full()
        assert source._inbox.held_bytes == 400_000
        source.acknowledge([event.token for event in source.drain() if isinstance(event, Delivery)])
        assert source._inbox.held_bytes == 0
    assert source.status.counts["pauses"] == 2
    assert len(pressed) == 2
    assert caplog.text.count("nothing more is read until they are durable") == 1


def test_half_a_window_asks_for_an_early_commit() -> None:
    pressed: list[int] = []
    source = receiver(pressed)
    for packet_id in range(1, 10):
        source._take([message("plant/a", packet_id)])
    assert not pressed
    source._take([message("plant/a", 10)])
    assert pressed == [1]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "refused"), "is the broker running?"),
        (TimeoutError(), "check host, port and firewall"),
        (socket.gaierror(-2, "unknown"), "can not be resolved"),
        (OSError(113, "No route to host"), "No route to host"),
        (ssl.SSLError(1, "odd"), "odd"),
    ],
)
def test_failures_say_what_to_do(error: OSError, text: str) -> None:
    assert text in mqtt_failures.not_reached(error, MqttSource())
