"""MQTT 5 packets out of a stream of bytes.

Messages are most of what comes, so they are read here, many at a time; all other packets are
`mqtt5`'s. The properties of a message are passed over: nobody reads them, and one that is
malformed costs no message.
"""

import functools
import struct
from collections.abc import Iterable
from typing import Final

import mqtt5
from mqtt5 import DisconnectReasonCode

from buffer_service.sources.mqtt_client import Message

_PUBLISH: Final = 0x30
_DUP: Final = 0x08
_PUBACK: Final = functools.partial(struct.Struct("!BBH").pack, 0x40, 2)
_KIND: Final = 0xF0
_GOES_ON: Final = 0x80
_LENGTH_BITS: Final = 28
"""What a length may have: four bytes of seven bits."""
_LEAST: Final = 2
"""Bytes of the smallest packet."""
_FORBIDDEN: Final = frozenset(b"\0+#")
_TOPICS: Final = 100_000
_new: Final = tuple.__new__
_PANIC: Final = "PanicException"
"""What `mqtt5` raises for text that is not UTF-8; the class can not be imported."""


class ProtocolError(Exception):
    """The broker has sent what it must not.

    Attributes:
        code: what to tell it.
    """

    def __init__(self, code: DisconnectReasonCode, problem: str) -> None:
        super().__init__(f"the broker sent what MQTT 5 does not allow: {problem}")
        self.code = code


Packet = Message | mqtt5.Packet


class PacketStream:
    """Takes bytes in any cut and gives packets, checked for one who subscribes at QoS 1.

    A packet that comes in many pieces is put together once, when it is whole.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._needed = _LEAST
        self._known: set[bytes] = set()

    def feed(self, data: bytes) -> tuple[list[Packet], ProtocolError | None]:
        """The packets that are whole now, and what is wrong with the bytes behind them.

        What comes behind an error is of no use.
        """
        self._pieces.append(data)
        self._size += len(data)
        if self._size < self._needed:
            return [], None
        packets: list[Packet] = []
        data = data if len(self._pieces) == 1 else b"".join(self._pieces)
        try:
            at = self._read(data, packets)
        except ProtocolError as found:
            return packets, found
        self._pieces = [data[at:]]
        self._size = len(data) - at
        return packets, None

    def _read(self, data: bytes, packets: list[Packet]) -> int:  # noqa: C901 - each message costs
        """Appends whole packets; returns where the first one begins that is not.

        It runs for every message, and a call more would cost a tenth.
        """
        at, end, known = 0, len(data), self._known
        self._needed = _LEAST
        while end - at >= _LEAST:
            command, length, head, shift = data[at], data[at + 1], at + 2, 7
            if length >= _GOES_ON:
                length -= _GOES_ON
                while True:
                    if shift == _LENGTH_BITS:
                        raise _malformed("a packet's length of more than four bytes")
                    if head == end:
                        self._needed = end - at + 1
                        return at
                    byte = data[head]
                    head += 1
                    length |= (byte & 0x7F) << shift
                    if byte < _GOES_ON:
                        break
                    shift += 7
            stop = head + length
            if stop > end:
                self._needed = stop - at
                return at
            if command & _KIND == _PUBLISH:
                try:
                    message = parse_publish(command, data, head, stop)
                except IndexError:
                    raise _malformed("PUBLISH is cut short") from None
                if message[0] not in known or message[3] != 1 or not message[2]:
                    self._check(message)
                packets.append(message)
            else:
                packets.append(_other(data[at:stop]))
            at = stop
        return at

    def _check(self, message: Message) -> None:
        topic, _, packet_id, qos, _, dup = message
        if qos == 3:  # noqa: PLR2004 - both bits
            raise _malformed("QoS 3")
        if qos == 2:  # noqa: PLR2004 - QoS 2
            raise ProtocolError(
                DisconnectReasonCode.QOS_NOT_SUPPORTED,
                "a message of QoS 2, which nobody here subscribes; another program may have used"
                " this client id: choose another one",
            )
        if qos and not packet_id:
            raise ProtocolError(DisconnectReasonCode.PROTOCOL_ERROR, "packet id 0")
        if dup and not qos:
            raise _malformed("DUP at QoS 0")
        if topic in self._known:
            return
        if not topic:
            code = DisconnectReasonCode.TOPIC_ALIAS_INVALID
            raise ProtocolError(code, "a message without a topic; aliases are not taken")
        if not _FORBIDDEN.isdisjoint(topic):
            raise ProtocolError(DisconnectReasonCode.TOPIC_NAME_INVALID, f"topic {topic!r}")
        if len(self._known) >= _TOPICS:
            self._known.clear()
        self._known.add(topic)


def parse_publish(command: int, data: bytes, at: int, end: int) -> Message:
    """The message of a PUBLISH packet.

    Args:
        command: the first byte of the packet.
        data: holds it.
        at: where what follows the remaining length begins.
        end: where the packet ends.

    Raises:
        IndexError: the packet is cut short.
    """
    topic_at = at + 2
    at = topic_at + (data[at] << 8 | data[at + 1])
    topic = data[topic_at:at]
    qos = command >> 1 & 3
    packet_id = 0
    if qos:
        packet_id = data[at] << 8 | data[at + 1]
        at += 2
    length = data[at]
    at += 1
    if length:
        if length >= _GOES_ON:
            length, at = _length(data, at - 1)
        at += length
    if at > end:
        raise IndexError(at)
    # what the class itself would do, in a third of the time
    return _new(
        Message, (topic, data[at:end], packet_id, qos, command & 1 == 1, command & _DUP == _DUP)
    )


def pubacks(packet_ids: Iterable[int]) -> bytes:
    """Acknowledgements of messages, one packet behind the other."""
    return b"".join(map(_PUBACK, packet_ids))


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A length of more than a byte, and where it ends."""
    length = shift = 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < _GOES_ON:
            return length, at
        shift += 7


def _other(data: bytes) -> mqtt5.Packet:
    """A packet that is no message."""
    try:
        packet, _ = mqtt5.read(memoryview(data))
    except (ValueError, IndexError) as found:
        raise _malformed(str(found)) from found
    except BaseException as found:
        if type(found).__name__ != _PANIC:
            raise
        raise _malformed("text that is not UTF-8") from None
    return packet


def _malformed(problem: str) -> ProtocolError:
    return ProtocolError(DisconnectReasonCode.MALFORMED_PACKET, problem)
