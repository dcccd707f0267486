"""A client of our own around `mqtt5`, which reads and writes the packets."""

import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import mqtt5
from mqtt5 import DisconnectReasonCode, QoS, RetainHandling, SubAckReasonCode

from buffer_service.sources.buffered_socket import BufferedSocket
from buffer_service.sources.mqtt_client import Answer, Events, Message, OpenSocket, is_shared
from buffer_service.sources.mqtt_packets import Packet, PacketStream, ProtocolError, pubacks
from iiot_platform.config.plant import MqttSource

ReasonCode = (
    mqtt5.ConnAckReasonCode
    | mqtt5.SubAckReasonCode
    | mqtt5.UnsubAckReasonCode
    | mqtt5.DisconnectReasonCode
)
"""No `IntEnum` while the program runs, whatever the types say: take `int` of it."""

_READ_BYTES: Final = 262_144
_FAILURE: Final = 0x80
_LARGEST_ID: Final = 65_535
_LARGEST_PACKET: Final = 268_435_460
"""What MQTT can write. No smaller limit is announced: a broker drops, without a word, what is above
the limit of a subscriber."""
_FILTER_BYTES: Final = 3
"""What a packet needs for a filter beside its text; likewise for the head of the packet."""
_HEAD_BYTES: Final = 8


class Mqtt5Client:
    """A `Client` that only receives: it never publishes, and takes QoS 0 and 1.

    A broker that sends more than the Receive Maximum is borne with, since there are such: mosquitto
    2.0.11 does so as soon as acknowledgements come in bulk and messages wait. There are no more
    than 65,535 packet ids, so what is held stays bounded.

    Args:
        settings: the broker and how to log in.
        open_socket: connects to it.
        events: whom to tell.
    """

    def __init__(self, settings: MqttSource, open_socket: OpenSocket, events: Events) -> None:
        self.keepalive_s = settings.keepalive_s
        self._settings = settings
        self._open_socket = open_socket
        self._events = events
        self._sock: BufferedSocket | None = None
        self._stream = PacketStream()
        self._burst: list[Message] = []
        self._accepted = False
        self._ended = False
        self._may_share = True
        self._largest_packet = _LARGEST_PACKET
        self._asked: dict[int, Sequence[str]] = {}
        self._last_id = 0
        self._heard_at = self._sent_at = time.monotonic()
        self._asked_at: float | None = None

    def connect(self) -> None:
        """As `Client.connect`."""
        settings = self._settings
        password = settings.password
        packet = mqtt5.ConnectPacket(
            settings.client_id,
            username=settings.username,
            password=None if password is None else password.get_secret_value().encode(),
            clean_start=False,
            keep_alive=settings.keepalive_s,
            session_expiry_interval=settings.session_expiry_s,
            receive_max=settings.receive_maximum,
        ).write()
        inner = self._open_socket()
        inner.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._sock = BufferedSocket(inner)
        self._heard_at = time.monotonic()
        self._send(packet)

    def fileno(self) -> int:
        """As `Client.fileno`."""
        return -1 if self._sock is None else self._sock.fileno()

    @property
    def is_open(self) -> bool:
        """As `Client.is_open`."""
        return self._sock is not None

    @property
    def readable(self) -> bool:
        """As `Client.readable`."""
        return self._sock is not None and self._sock.readable

    def read(self) -> None:
        """As `Client.read`."""
        if self._sock is None:
            return
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._events.broke(error.strerror or str(error))
            return
        if not data:
            self._events.broke("closed by the broker")
            return
        self._heard_at = time.monotonic()
        packets, wrong = self._stream.feed(data)
        try:
            self._handle(packets)
            if wrong is not None and not self._ended:
                raise wrong
        except ProtocolError as found:
            self._give_up(found)

    def flush(self) -> bool:
        """As `Client.flush`."""
        return self._sock is None or self._sock.flush()

    def look_after(self, *, paused: bool = False) -> None:
        """As `Client.look_after`."""
        if not self._accepted:
            return
        now = time.monotonic()
        if paused:
            self._heard_at, self._asked_at = now, None
        if self._asked_at is not None and self._heard_at < self._asked_at:
            if now - self._asked_at > self.keepalive_s / 2:
                self._goodbye(DisconnectReasonCode.KEEP_ALIVE_TIMEOUT)
                self._events.broke(f"no answer for {now - self._heard_at:.0f} s")
        elif now - min(self._sent_at, self._heard_at) >= self.keepalive_s:
            self._asked_at = now
            self._send(mqtt5.PingReqPacket().write())

    def subscribe(self, filters: Sequence[str]) -> None:
        """As `Client.subscribe`."""
        if not self._may_share:
            # Asked for all the same, the broker would end the connection.
            shared = list(filter(is_shared, filters))
            code = SubAckReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
            self._events.subscribed(shared, [Answer(int(code), _name(code))] * len(shared))
            filters = [each for each in filters if each not in shared]
        for some in self._parted(filters):
            wanted = [
                mqtt5.TopicFilter(
                    each,
                    max_qos=QoS.AT_LEAST_ONCE,
                    retain_as_published=False,
                    retain_handling=RetainHandling.SEND_NEVER
                    if is_shared(each)
                    else RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
                )
                for each in some
            ]
            self._send(mqtt5.SubscribePacket(self._number(some), wanted).write())

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """As `Client.unsubscribe`."""
        for some in self._parted(filters):
            self._send(mqtt5.UnsubscribePacket(self._number(some), list(some)).write())

    def acknowledge(self, packet_ids: Iterable[int]) -> None:
        """As `Client.acknowledge`."""
        self._send(pubacks(packet_ids))

    def disconnect(self) -> None:
        """As `Client.disconnect`."""
        self._goodbye(DisconnectReasonCode.NORMAL_DISCONNECTION)

    def close(self) -> None:
        """As `Client.close`."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _handle(self, packets: Sequence[Packet]) -> None:
        burst = self._burst
        try:
            for packet in packets:
                if type(packet) is Message and self._accepted:
                    burst.append(packet)
                    continue
                self._tell()
                self._answer(packet)
                if self._ended:
                    return
        finally:
            self._tell()

    def _tell(self) -> None:
        if not self._burst:
            return
        messages = self._burst.copy()
        self._burst.clear()
        self._events.came(messages)

    def _answer(self, packet: Packet) -> None:
        if isinstance(packet, mqtt5.ConnAckPacket) and not self._accepted:
            self._connected(packet)
        elif isinstance(packet, mqtt5.DisconnectPacket):
            self._ended = True
            self._events.refused(_name(packet.reason_code))
        elif isinstance(packet, mqtt5.SubAckPacket) and packet.packet_id in self._asked:
            self._events.subscribed(*self._answered(packet))
        elif isinstance(packet, mqtt5.UnsubAckPacket) and packet.packet_id in self._asked:
            self._events.unsubscribed(*self._answered(packet))
        elif not isinstance(packet, mqtt5.PingRespPacket) or not self._accepted:
            what = "PUBLISH" if isinstance(packet, Message) else type(packet).__name__
            when = "" if self._accepted else " before CONNACK"
            raise ProtocolError(
                DisconnectReasonCode.PROTOCOL_ERROR, f"{what.removesuffix('Packet').upper()}{when}"
            )

    def _connected(self, packet: mqtt5.ConnAckPacket) -> None:
        if int(packet.reason_code) >= _FAILURE:
            self._ended = True
            self._events.refused(_name(packet.reason_code))
            return
        self._accepted = True
        if packet.server_keep_alive:
            self.keepalive_s = min(self.keepalive_s, packet.server_keep_alive)
        if packet.max_packet_size is not None:
            self._largest_packet = packet.max_packet_size
        self._may_share = packet.shared_subscription_available
        self._events.accepted(session_present=packet.session_present)

    def _answered(
        self, packet: mqtt5.SubAckPacket | mqtt5.UnsubAckPacket
    ) -> tuple[Sequence[str], list[Answer]]:
        filters = self._asked.pop(packet.packet_id)
        answers = [Answer(int(code), _name(code)) for code in packet.reason_codes]
        if len(answers) != len(filters):
            raise ProtocolError(
                DisconnectReasonCode.PROTOCOL_ERROR,
                f"{len(answers)} answers to {len(filters)} topic filters",
            )
        return filters, answers

    def _parted(self, filters: Sequence[str]) -> Iterator[Sequence[str]]:
        """Filters in packets that the broker takes."""
        some: list[str] = []
        size = 0
        for each in filters:
            needed = len(each.encode()) + _FILTER_BYTES
            if some and size + needed + _HEAD_BYTES > self._largest_packet:
                yield some
                some, size = [], 0
            some.append(each)
            size += needed
        if some:
            yield some

    def _number(self, filters: Sequence[str]) -> int:
        """A packet id for these that waits for no answer."""
        while True:
            self._last_id = self._last_id % _LARGEST_ID + 1
            if self._last_id not in self._asked:
                self._asked[self._last_id] = filters
                return self._last_id

    def _send(self, packets: bytes) -> None:
        if self._sock is not None:
            self._sent_at = time.monotonic()
            self._sock.send(packets)

    def _goodbye(self, code: DisconnectReasonCode) -> None:
        self._send(mqtt5.DisconnectPacket(reason_code=code).write())

    def _give_up(self, error: ProtocolError) -> None:
        self._ended = True
        self._goodbye(error.code)
        self._events.broke(str(error))


def _name(code: ReasonCode) -> str:
    """A reason code's name as the standard writes it."""
    return code.name.replace("_", " ").capitalize()
