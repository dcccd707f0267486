"""Whatever a broker sends, in whatever pieces: the same messages, or an error of the protocol."""

import random

import mqtt5
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from buffer_service.sources.mqtt_client import Message
from buffer_service.sources.mqtt_packets import PacketStream

# mqtt5 panics, and says so, where a broker's own text is not UTF-8
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

topics = st.text(
    st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=20
)
publishes = st.builds(
    lambda topic, payload, packet_id, retain, dup, names: mqtt5.PublishPacket(
        topic,
        payload,
        qos=mqtt5.QoS.AT_LEAST_ONCE if packet_id else mqtt5.QoS.AT_MOST_ONCE,
        packet_id=packet_id,
        retain=retain,
        duplicate=dup and packet_id is not None,
        user_properties=names,
    ).write(),
    topics,
    st.binary(max_size=300),
    st.none() | st.integers(1, 65_535),
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(topics, topics), max_size=2),
)
others = st.sampled_from(
    [
        mqtt5.PingRespPacket().write(),
        mqtt5.SubAckPacket(7, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]).write(),
        mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SERVER_BUSY).write(),
    ]
)
streams = st.lists(publishes | others, max_size=12).map(b"".join)


def read(pieces: list[bytes]) -> tuple[list[object], str]:
    """What comes out, and the error that ends it."""
    stream = PacketStream()
    found: list[object] = []
    for piece in pieces:
        packets, error = stream.feed(piece)
        found += [one if isinstance(one, Message) else repr(one) for one in packets]
        if error is not None:
            return found, str(error)
    return found, ""


def cut(data: bytes, seed: int) -> list[bytes]:
    choose = random.Random(seed)
    at = sorted(choose.randint(0, len(data)) for _ in range(choose.randint(0, 20)))
    return [data[lo:hi] for lo, hi in zip([0, *at], [*at, len(data)], strict=True)]


@given(streams, st.integers(0, 2**32))
def test_any_cut_gives_the_same_packets(data: bytes, seed: int) -> None:
    assert read(cut(data, seed)) == read([data]) == read([bytes([byte]) for byte in data])
    assert not read([data])[1]


@given(streams, st.binary(min_size=1, max_size=40), st.integers(0, 2**32))
@example(b"", b"\x90\x09\x00\x01\x04\x1f\x00\x01\xff\x01", 0)
@example(b"\x30\x04\x00\x01a\x00", b"\xff" * 9, 0)
def test_rubbish_is_an_error_of_the_protocol_and_costs_nothing_before_it(
    data: bytes, rubbish: bytes, seed: int
) -> None:
    before, _ = read([data])
    found, error = read([data + rubbish])
    assert found[: len(before)] == before
    assert read(cut(data + rubbish, seed)) == (found, error)


@given(streams.filter(bool), st.data())
def test_a_changed_byte_is_read_or_refused(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    changed = bytearray(data)
    changed[at] = draw.draw(st.integers(0, 255))
    assert read([bytes(changed)]) == read([bytes(changed[:at]), bytes(changed[at:])])
