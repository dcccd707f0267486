"""paho as the client, with a faster path for messages.

paho reads a message in three or four system calls, builds an object of all 27 properties that
MQTT 5 knows for it, and sends each acknowledgement by itself. Here some hundred messages share
one system call each way, and what nobody reads is not built.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from buffer_service.sources.buffered_socket import BufferedSocket
from buffer_service.sources.mqtt_client import Answer, Events, Message, OpenSocket, is_shared
from buffer_service.sources.mqtt_packets import parse_publish, pubacks
from iiot_platform.config.broker_client import log_in
from iiot_platform.config.plant import MqttSource

_READ_BURST: Final = 256
_READ_BYTES: Final = 262_144
_SEND_RETAINED_ONCE: Final = 1
_SEND_NO_RETAINED: Final = 2


class PahoClient:
    """A `Client` by paho.

    Args:
        settings: the broker and how to log in.
        open_socket: connects to it.
        events: whom to tell.
    """

    def __init__(self, settings: MqttSource, open_socket: OpenSocket, events: Events) -> None:
        self.keepalive_s = settings.keepalive_s
        self._settings = settings
        self._events = events
        self._asked: dict[int, Sequence[str]] = {}
        self._burst: list[Message] = []
        self._disconnecting = False
        self._client = self._make(open_socket)
        self._sock: BufferedSocket | None = None

    def _make(self, open_socket: OpenSocket) -> "BufferedClient":
        settings = self._settings
        client = BufferedClient(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.open_socket = open_socket
        log_in(client, settings)
        client.on_connect = self._handle_connect
        client.on_disconnect = self._handle_disconnect
        client.on_publish_packet = self._burst.append
        client.on_subscribe = self._handle_subscribe
        client.on_unsubscribe = self._handle_unsubscribe
        return client

    def connect(self) -> None:
        """As `Client.connect`."""
        settings = self._settings
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's gap
        properties.ReceiveMaximum = settings.receive_maximum
        properties.SessionExpiryInterval = settings.session_expiry_s
        self._client.connect(
            settings.host,
            settings.port,
            settings.keepalive_s,
            clean_start=False,
            properties=properties,
        )
        self._sock = cast("BufferedSocket | None", self._client.socket())

    def fileno(self) -> int:
        """As `Client.fileno`."""
        return -1 if self._sock is None else self._sock.fileno()

    @property
    def is_open(self) -> bool:
        """As `Client.is_open`."""
        return self._sock is not None and self._client.socket() is cast("Any", self._sock)

    @property
    def readable(self) -> bool:
        """As `Client.readable`."""
        return self._sock is not None and self._sock.readable

    def read(self) -> None:
        """As `Client.read`."""
        client, burst, size = self._client, self._burst, 0
        for _ in range(_READ_BURST):
            before = len(burst)
            if client.loop_read() or len(burst) == before:
                break
            # told already where another packet came behind it
            size += len(burst[-1].payload) if burst else 0
            if size > _READ_BYTES:
                break
        self._tell()

    def _tell(self) -> None:
        if self._burst:
            messages = self._burst.copy()
            self._burst.clear()
            self._events.came(messages)

    def flush(self) -> bool:
        """As `Client.flush`."""
        return self._sock is None or self._sock.flush()

    def look_after(self, *, paused: bool = False) -> None:
        """As `Client.look_after`."""
        if paused:
            self._client.expect_no_answer()
        self._client.loop_misc()

    def subscribe(self, filters: Sequence[str]) -> None:
        """As `Client.subscribe`."""
        _, number = self._client.subscribe([(each, _options(each)) for each in filters])
        if number is not None:
            self._asked[number] = filters

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """As `Client.unsubscribe`."""
        _, number = self._client.unsubscribe(list(filters))
        if number is not None:
            self._asked[number] = filters

    def acknowledge(self, packet_ids: Iterable[int]) -> None:
        """As `Client.acknowledge`."""
        if self._sock is not None:
            # The socket takes whole packets always, so these never fall into one of paho's.
            self._sock.send(pubacks(packet_ids))

    def disconnect(self) -> None:
        """As `Client.disconnect`."""
        # paho closes the socket behind it, which sends what is left.
        self._disconnecting = True
        self._client.disconnect()

    def close(self) -> None:
        """As `Client.close`."""
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    def _handle_connect(
        self, _client: Client, _data: Any, flags: ConnectFlags, code: ReasonCode, _props: Any
    ) -> None:
        if code.is_failure:
            self._events.refused(code.getName())
        else:
            self._events.accepted(session_present=flags.session_present)

    def _handle_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, code: ReasonCode, _props: Any
    ) -> None:
        if self._disconnecting:
            return
        self._tell()
        if flags.is_disconnect_packet_from_server:
            self._events.refused(code.getName())
        else:
            self._events.broke(code.getName())

    def _handle_subscribe(
        self, _client: Client, _data: Any, number: int, codes: list[ReasonCode], _props: Any
    ) -> None:
        self._tell()
        self._events.subscribed(self._asked.pop(number, ()), _answers(codes))

    def _handle_unsubscribe(
        self, _client: Client, _data: Any, number: int, codes: list[ReasonCode], _props: Any
    ) -> None:
        self._tell()
        self._events.unsubscribed(self._asked.pop(number, ()), _answers(codes))


def _answers(codes: Sequence[ReasonCode]) -> list[Answer]:
    return [Answer(code.value, code.getName()) for code in codes]


def _options(topic_filter: str) -> SubscribeOptions:
    retained = _SEND_NO_RETAINED if is_shared(topic_filter) else _SEND_RETAINED_ONCE
    return SubscribeOptions(qos=1, retainHandling=retained)


class BufferedClient(Client):
    """paho's client over a `BufferedSocket`, for MQTT 5 and subscriptions of QoS 0 and 1.

    Two private methods of paho are replaced; a test fails when a release no longer calls them.
    """

    open_socket: OpenSocket
    """Connects, with TLS where it is wanted."""
    on_publish_packet: Callable[[Message], None]
    """Called for each message, instead of `on_message`."""

    def expect_no_answer(self) -> None:
        """Nothing was read for a while: whether the broker has answered is not known."""
        self._ping_t = 0.0
        self._last_bytes_received = time.monotonic()

    def _create_socket(self) -> Any:
        return BufferedSocket(self.open_socket())

    def _handle_publish(self) -> MQTTErrorCode:
        packet = self._in_packet
        try:
            body = bytes(packet["packet"])
            message = parse_publish(packet["command"], body, 0, len(body))
        except IndexError:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        self.on_publish_packet(message)
        return MQTTErrorCode.MQTT_ERR_SUCCESS
