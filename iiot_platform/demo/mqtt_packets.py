"""MQTT packets as bytes: what the demo's broker reads and writes of 3.1.1 and 5.0.

Names and numbers are those of the OASIS standards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from iiot_platform.core.errors import SourceError

CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14

V311: Final = 4
V5: Final = 5

MAX_PACKET: Final = 16 * 1024 * 1024
_MAX_LENGTH_BYTES: Final = 4
_CONTINUES: Final = 0x80

SESSION_EXPIRY: Final = 0x11
ASSIGNED_CLIENT_ID: Final = 0x12
RECEIVE_MAXIMUM: Final = 0x21
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
SUBSCRIPTION_IDS_AVAILABLE: Final = 0x29
SHARED_SUBSCRIPTIONS_AVAILABLE: Final = 0x2A

_ONE_BYTE: Final = frozenset({0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A})
_TWO_BYTES: Final = frozenset({0x13, 0x21, 0x22, 0x23})
_FOUR_BYTES: Final = frozenset({0x02, 0x11, 0x18, 0x27})
_VARIABLE: Final = frozenset({0x0B})
_TEXT: Final = frozenset({0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F})
_USER_PROPERTY: Final = 0x26


class MalformedPacketError(SourceError):
    """A client sent what the protocol does not allow."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"malformed packet: {problem}")


class Packet(NamedTuple):
    """One packet: its type, the four flag bits, and what follows the fixed header."""

    kind: int
    flags: int
    body: bytes


class Reader:
    """Takes values from the front of a packet's body."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def left(self) -> bool:
        """True while something is left."""
        return self._at < len(self._body)

    def take(self, count: int) -> bytes:
        """The next bytes.

        Raises:
            MalformedPacketError: there are fewer.
        """
        end = self._at + count
        if end > len(self._body):
            raise MalformedPacketError("it ends too early")
        part = self._body[self._at : end]
        self._at = end
        return part

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self._body) - self._at)

    def number(self, size: int) -> int:
        """A big-endian number of some bytes."""
        return int.from_bytes(self.take(size), "big")

    def binary(self) -> bytes:
        """Bytes behind their two-byte length."""
        return self.take(self.number(2))

    def text(self) -> str:
        """UTF-8 text behind its two-byte length.

        Raises:
            MalformedPacketError: it is not UTF-8.
        """
        try:
            return self.binary().decode()
        except UnicodeDecodeError as error:
            raise MalformedPacketError("text is not UTF-8") from error

    def variable(self) -> int:
        """A number of variable length."""
        value = 0
        for place in range(_MAX_LENGTH_BYTES):
            byte = self.number(1)
            value |= (byte & 0x7F) << (7 * place)
            if byte < _CONTINUES:
                return value
        raise MalformedPacketError("a length has more than four bytes")

    def properties(self) -> bytes:
        """The properties of a 5.0 packet, still encoded."""
        return self.take(self.variable())


def packets(buffer: bytearray) -> Iterator[Packet]:
    """Takes the whole packets from the front of a buffer; a part of one stays in it.

    Raises:
        MalformedPacketError: what stands there can not be a packet.
    """
    at = 0
    try:
        while True:
            body_at, length, complete = at + 1, 0, False
            for place in range(_MAX_LENGTH_BYTES):
                if body_at >= len(buffer):
                    return
                byte = buffer[body_at]
                body_at += 1
                length |= (byte & 0x7F) << (7 * place)
                if byte < _CONTINUES:
                    complete = True
                    break
            if not complete or length > MAX_PACKET:
                raise MalformedPacketError(f"longer than {MAX_PACKET} bytes")
            if body_at + length > len(buffer):
                return
            head = buffer[at]
            at = body_at + length
            yield Packet(head >> 4, head & 0x0F, bytes(buffer[body_at:at]))
    finally:
        del buffer[:at]


def encode(kind: int, body: bytes, flags: int = 0) -> bytes:
    """A packet with its fixed header."""
    return bytes(((kind << 4) | flags,)) + variable(len(body)) + body


def variable(value: int) -> bytes:
    """A number of variable length."""
    encoded = bytearray()
    while True:
        value, low = divmod(value, 0x80)
        encoded.append(low | (_CONTINUES if value else 0))
        if not value:
            return bytes(encoded)


def text(value: str) -> bytes:
    """UTF-8 text behind its two-byte length."""
    encoded = value.encode()
    return len(encoded).to_bytes(2, "big") + encoded


@dataclass(frozen=True)
class Connect:
    """What a client asks for when it connects.

    Attributes:
        level: protocol level; fields behind `V5`'s differ from those of 3.1.1.
        client_id: empty: the server gives one.
        clean_start: forget an earlier session.
        session_expiry_s: how long the session stays behind the connection.
        receive_maximum: QoS 1 messages that may be unacknowledged towards the client.
    """

    level: int
    client_id: str
    clean_start: bool
    session_expiry_s: int
    receive_maximum: int


_NEVER: Final = 0xFFFF_FFFF
_CLEAN_START: Final = 0x02


def read_connect(body: bytes) -> Connect:
    """A CONNECT packet; a will, user name and password are not looked at.

    Raises:
        MalformedPacketError: it is none.
    """
    reader = Reader(body)
    if reader.text() != "MQTT":
        raise MalformedPacketError("not MQTT")
    level = reader.number(1)
    clean = bool(reader.number(1) & _CLEAN_START)
    reader.number(2)
    expiry, maximum = (0 if clean else _NEVER), 0xFFFF
    if level == V5:
        numbers = _numbers(reader.properties())
        expiry = numbers.get(SESSION_EXPIRY, 0)
        maximum = numbers.get(RECEIVE_MAXIMUM, maximum)
    return Connect(level, reader.text(), clean, expiry, maximum)


def _numbers(properties: bytes) -> dict[int, int]:
    """The properties that are numbers."""
    reader = Reader(properties)
    numbers = {}
    while reader.left:
        name = reader.variable()
        if name in _ONE_BYTE:
            numbers[name] = reader.number(1)
        elif name in _TWO_BYTES:
            numbers[name] = reader.number(2)
        elif name in _FOUR_BYTES:
            numbers[name] = reader.number(4)
        elif name in _VARIABLE:
            numbers[name] = reader.variable()
        elif name in _TEXT:
            reader.binary()
        elif name == _USER_PROPERTY:
            reader.binary()
            reader.binary()
        else:
            raise MalformedPacketError(f"unknown property {name:#x}")
    return numbers


class Publish(NamedTuple):
    """A message; `packet_id` is 0 at QoS 0, `properties` are still encoded."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    properties: bytes


def read_publish(packet: Packet, level: int) -> Publish:
    """A PUBLISH packet.

    Raises:
        MalformedPacketError: it is none.
    """
    reader = Reader(packet.body)
    qos = (packet.flags >> 1) & 3
    topic = reader.text()
    packet_id = reader.number(2) if qos else 0
    properties = reader.properties() if level == V5 else b""
    if not topic or "+" in topic or "#" in topic:
        raise MalformedPacketError("a topic is empty or holds a wildcard")
    return Publish(topic, reader.rest(), qos, packet_id, properties)


def publish(message: Publish, level: int, *, dup: bool = False) -> bytes:
    """A PUBLISH packet towards a client."""
    body = text(message.topic)
    if message.qos:
        body += message.packet_id.to_bytes(2, "big")
    if level == V5:
        body += variable(len(message.properties)) + message.properties
    return encode(PUBLISH, body + message.payload, (message.qos << 1) | (8 if dup else 0))


class Subscriptions(NamedTuple):
    """Filters with the QoS asked for; UNSUBSCRIBE has filters alone."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


def read_subscriptions(packet: Packet, level: int) -> Subscriptions:
    """A SUBSCRIBE or UNSUBSCRIBE packet.

    Raises:
        MalformedPacketError: it is none.
    """
    reader = Reader(packet.body)
    packet_id = reader.number(2)
    if level == V5:
        reader.properties()
    filters = []
    while reader.left:
        name = reader.text()
        filters.append((name, reader.number(1) & 3 if packet.kind == SUBSCRIBE else 0))
    return Subscriptions(packet_id, tuple(filters))


def matches(pattern: str, topic: str) -> bool:
    """True where a topic filter covers a topic."""
    levels = topic.split("/")
    wanted = pattern.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(levels) or level not in {"+", levels[place]}:
            return False
    return len(wanted) == len(levels)
