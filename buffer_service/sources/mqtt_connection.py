"""One connection to a broker, from CONNECT to its end, driven by one thread.

Each connection has a client of its own, so that nothing of a lost one, an acknowledgement above
all, can reach the next.
"""

import contextlib
import functools
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from buffer_service.sources import mqtt_failures
from buffer_service.sources.buffered_client import BufferedClient, BufferedSocket, Message
from buffer_service.sources.mqtt_routing import SHARED
from iiot_platform.config.plant import MqttSource
from iiot_platform.config.tls import client_context

STEADY_S: Final = 5.0
"""A connection that lasted longer was a good one."""
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 10.0
_PUBACK: Final = functools.partial(struct.Struct("!BBH").pack, 0x40, 2)
_POLL_S: Final = 1.0
_READ_BURST: Final = 256
_READ_WRITE: Final = selectors.EVENT_READ | selectors.EVENT_WRITE
_SEND_RETAINED_ONCE: Final = 1
_SEND_NO_RETAINED: Final = 2


class Wanted(NamedTuple):
    """How the subscriptions of a session are to be."""

    filters: Sequence[str]
    stale: Sequence[str]
    """Filters that the broker may still have and that shall go."""


class Connection:
    """One connection; `run` it once.

    Args:
        settings: the broker and how to log in.
        wanted: asked for the subscriptions when they are about to be sent.
        on_connected: called with `session_present` when the broker has accepted us.
        on_message: called for each message; nothing is acknowledged by itself.
        on_subscribed: called with the filters that the broker has taken, and with those that it
            has not and the reasons.
        on_unsubscribed: called with the filters that the broker has let go.
    """

    def __init__(
        self,
        settings: MqttSource,
        wanted: Callable[[], Wanted],
        *,
        on_connected: Callable[[bool], None],
        on_message: Callable[[Message], None],
        on_subscribed: Callable[[Sequence[str], Mapping[str, str]], None],
        on_unsubscribed: Callable[[Sequence[str]], None],
    ) -> None:
        self._settings = settings
        self._wanted = wanted
        self._on_connected = on_connected
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._on_unsubscribed = on_unsubscribed
        self._asked: dict[int, Sequence[str]] = {}
        self._may_subscribe = False
        self._received = 0
        self._accepted = False
        self._accepted_at = 0.0
        self._subscribe_due = False
        self._stopping = False
        self._end: str | None = None
        self._acknowledgements: deque[Iterable[int]] = deque()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._wake_write.setblocking(False)  # noqa: FBT003 - likewise
        self._client = self._make_client()

    def run(self) -> str:
        """Connect and serve until the connection ends; returns why it did."""
        try:
            if self._stopping:
                return "stopped"
            return self._serve()
        finally:
            self._wake_read.close()
            self._wake_write.close()

    def acknowledge(self, packet_ids: Iterable[int]) -> None:
        """Acknowledge in this order; from any thread, void when the connection has ended."""
        self._acknowledgements.append(packet_ids)
        self._wake()

    def subscribe(self) -> None:
        """Subscribe what is wanted; from any thread."""
        self._may_subscribe = True
        self.refresh()

    def refresh(self) -> None:
        """Something else is wanted now; from any thread, void before `subscribe`."""
        if self._may_subscribe:
            self._subscribe_due = True
            self._wake()

    def stop(self) -> None:
        """Send the acknowledgements that are due and disconnect; from any thread."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        # A full pipe wakes as well as one byte does; a closed one has nobody left to wake.
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_write.send(b"\0")

    def _make_client(self) -> BufferedClient:
        settings = self._settings
        client = BufferedClient(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.open_socket = self._open_socket
        if settings.username is not None:
            password = settings.password
            client.username_pw_set(
                settings.username, None if password is None else password.get_secret_value()
            )
        client.on_connect = self._handle_connect
        client.on_disconnect = self._handle_disconnect
        client.on_publish_packet = self._handle_message
        client.on_subscribe = self._handle_subscribe
        client.on_unsubscribe = self._handle_unsubscribe
        return client

    def _open_socket(self) -> socket.socket:
        settings = self._settings
        plain = socket.create_connection((settings.host, settings.port), CONNECT_TIMEOUT_S)
        if settings.tls is None:
            return plain
        try:
            context = client_context(settings.tls)
            return context.wrap_socket(plain, server_hostname=settings.host)
        except BaseException:
            plain.close()
            raise

    def _serve(self) -> str:
        settings = self._settings
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's gap
        properties.ReceiveMaximum = settings.receive_maximum
        properties.SessionExpiryInterval = settings.session_expiry_s
        try:
            self._client.connect(
                settings.host,
                settings.port,
                settings.keepalive_s,
                clean_start=False,
                properties=properties,
            )
        except OSError as error:
            return mqtt_failures.not_reached(error, settings)
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            try:
                self._loop(selector)
            finally:
                sock = self._client.socket()
                if sock is not None:
                    sock.close()
        return self._end or "the connection was closed"

    def _loop(self, selector: selectors.BaseSelector) -> None:
        client = self._client
        sock = cast("BufferedSocket | None", client.socket())
        if sock is None:
            return
        answer_by = time.monotonic() + ANSWER_TIMEOUT_S
        selector.register(sock, selectors.EVENT_READ)
        watched = selectors.EVENT_READ
        while cast("BufferedSocket | None", client.socket()) is sock and self._end is None:
            flushed = self._flush(sock)
            wanted = selectors.EVENT_READ if flushed else _READ_WRITE
            if wanted != watched:
                selector.modify(sock, wanted)
                watched = wanted
            ready = {key.fileobj for key, _ in selector.select(0 if sock.readable else _POLL_S)}
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4_096)
            if sock in ready or sock.readable:
                self._read()
            if self._end is None:
                self._write(sock)
            if self._stopping and not self._acknowledgements:
                self._disconnect()
            client.loop_misc()
            if not self._accepted and time.monotonic() > answer_by:
                self._end = f"no answer to CONNECT within {ANSWER_TIMEOUT_S:.0f} s"

    def _flush(self, sock: BufferedSocket) -> bool:
        try:
            return sock.flush()
        except OSError as error:
            self._end = self._broken(error.strerror or str(error))
            return True

    def _read(self) -> None:
        client = self._client
        for _ in range(_READ_BURST):
            before = self._received
            if client.loop_read() or self._received == before:
                return

    def _write(self, sock: BufferedSocket) -> None:
        if self._subscribe_due:
            self._subscribe_due = False
            self._subscribe()
        while self._acknowledgements:
            # The socket takes whole packets always, so these never fall into one of paho's.
            sock.send(
                b"".join(_PUBACK(packet_id) for packet_id in self._acknowledgements.popleft())
            )

    def _subscribe(self) -> None:
        wanted = self._wanted()
        # New ones first: where a wider filter makes room for narrower ones, nothing slips between.
        if wanted.filters:
            _, number = self._client.subscribe([(each, _options(each)) for each in wanted.filters])
            if number is not None:
                self._asked[number] = wanted.filters
        if wanted.stale:
            _, number = self._client.unsubscribe(list(wanted.stale))
            if number is not None:
                self._asked[number] = wanted.stale

    def _disconnect(self) -> None:
        self._end = "stopped"
        # paho closes the socket behind it, which sends what is left.
        self._client.disconnect()

    def _handle_connect(
        self, _client: Client, _data: Any, flags: ConnectFlags, code: ReasonCode, _props: Any
    ) -> None:
        if code.is_failure:
            self._end = mqtt_failures.refused(code.getName(), self._settings)
            return
        self._accepted = True
        self._accepted_at = time.monotonic()
        self._on_connected(flags.session_present)

    def _handle_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, code: ReasonCode, _props: Any
    ) -> None:
        if self._end is not None:
            return
        name = code.getName()
        if flags.is_disconnect_packet_from_server:
            self._end = mqtt_failures.refused(name, self._settings)
        else:
            self._end = self._broken(name)

    def _broken(self, detail: str) -> str:
        """Why the connection broke off, without a word of the broker's."""
        if not self._accepted:
            return mqtt_failures.closed_early(self._settings, detail)
        if time.monotonic() - self._accepted_at < STEADY_S:
            return mqtt_failures.closed_at_once(self._settings, detail)
        return f"the connection broke ({detail})"

    def _handle_message(self, message: Message) -> None:
        self._received += 1
        self._on_message(message)

    def _handle_subscribe(
        self, _client: Client, _data: Any, number: int, codes: list[ReasonCode], _props: Any
    ) -> None:
        taken, refused = [], {}
        for topic_filter, code in zip(self._asked.pop(number, ()), codes, strict=False):
            if code.is_failure:
                refused[topic_filter] = code.getName()
            elif code.value == 0:
                refused[topic_filter] = "QoS 0 was granted instead of 1, messages may be lost"
            else:
                taken.append(topic_filter)
        self._on_subscribed(taken, refused)

    def _handle_unsubscribe(
        self, _client: Client, _data: Any, number: int, codes: list[ReasonCode], _props: Any
    ) -> None:
        asked = zip(self._asked.pop(number, ()), codes, strict=False)
        self._on_unsubscribed([topic_filter for topic_filter, code in asked if not code.is_failure])


def _options(topic_filter: str) -> SubscribeOptions:
    """Retained messages come once; to a shared subscription never, where each member had them."""
    shared = topic_filter.startswith(SHARED)
    return SubscribeOptions(
        qos=1, retainHandling=_SEND_NO_RETAINED if shared else _SEND_RETAINED_ONCE
    )
