"""MQTT 5 packets out of a stream of bytes.

The packets themselves are read and written by `mqtt5`. Here is what belongs to a stream: packets
that come in parts, and what a client that only receives must not be sent.
"""

from typing import Final

import mqtt5
from mqtt5 import DisconnectReasonCode, PublishPacket, QoS

from buffer_service.sources.mqtt_client import Message

_FORBIDDEN: Final = frozenset("\0+#")
_TOPICS: Final = 100_000
_TAKEN: Final = (QoS.AT_LEAST_ONCE,)
"""`in` compares by identity first, which costs a tenth of `==` here."""
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


class PacketStream:
    """Takes bytes in any cut and gives packets; what stands before an error counts."""

    def __init__(self) -> None:
        self._unread = bytearray()

    def feed(self, data: bytes) -> tuple[list[mqtt5.Packet], ProtocolError | None]:
        """The packets that are whole now, and what is wrong with the bytes behind them."""
        unread = self._unread
        unread += data
        packets: list[mqtt5.Packet] = []
        at, end = 0, len(unread)
        error = None
        read = mqtt5.read
        with memoryview(unread) as view:
            while at < end:
                try:
                    packet, size = read(view[at:])
                except IndexError:  # the rest has not come yet
                    break
                except ValueError as found:
                    error = _malformed(str(found))
                    break
                except BaseException as found:
                    if type(found).__name__ != _PANIC:
                        raise
                    error = _malformed("text that is not UTF-8")
                    break
                packets.append(packet)
                at += size
        del unread[:at]
        return packets, error


class MessageReader:
    """Checks PUBLISH packets and makes messages of them."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def message(self, packet: PublishPacket) -> Message:
        """The message of a packet.

        Raises:
            ProtocolError: a subscriber of QoS 1 without topic aliases must not be sent this.
        """
        packet_id, dup, topic = packet.packet_id, packet.duplicate, packet.topic
        if topic not in self._known or packet.topic_alias is not None:
            self._check_topic(packet)
        if packet_id is None:
            if dup:
                raise _malformed("DUP at QoS 0")
            return Message(topic, packet.payload, 0, 0, packet.retain, dup=False)
        if packet.qos not in _TAKEN:
            raise ProtocolError(
                DisconnectReasonCode.QOS_NOT_SUPPORTED,
                "a message of QoS 2, which nobody here subscribes; another program may have used"
                " this client id: choose another one",
            )
        if not packet_id:
            raise ProtocolError(DisconnectReasonCode.PROTOCOL_ERROR, "packet id 0")
        return Message(topic, packet.payload, packet_id, 1, packet.retain, dup)

    def _check_topic(self, packet: PublishPacket) -> None:
        topic = packet.topic
        if packet.topic_alias is not None:
            raise ProtocolError(DisconnectReasonCode.TOPIC_ALIAS_INVALID, "a topic alias")
        if not topic or not _FORBIDDEN.isdisjoint(topic):
            raise ProtocolError(DisconnectReasonCode.TOPIC_NAME_INVALID, f"topic {topic!r}")
        if len(self._known) >= _TOPICS:
            self._known.clear()
        self._known.add(topic)


def _malformed(problem: str) -> ProtocolError:
    return ProtocolError(DisconnectReasonCode.MALFORMED_PACKET, problem)
