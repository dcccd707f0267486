"""One connection to a broker, from CONNECT to its end, driven by one thread.

Each connection has a client of its own, so that nothing of a lost one, an acknowledgement above
all, can reach the next.
"""

import contextlib
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from buffer_service.sources import mqtt_failures
from buffer_service.sources.mqtt5_client import Mqtt5Client
from buffer_service.sources.mqtt_client import Answer, Client, Message
from buffer_service.sources.paho_client import PahoClient
from iiot_platform.config.plant import MqttSource
from iiot_platform.config.tls import client_context

STEADY_S: Final = 5.0
"""A connection that lasted longer was a good one."""
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 10.0
_LONGEST_POLL_S: Final = 1.0


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
        on_messages: called with what one read has brought; nothing is acknowledged by itself.
        on_subscribed: called with the filters that the broker has taken, and with those that it
            has not and the reasons.
        on_unsubscribed: called with the filters that the broker has let go.
        is_full: True while nothing more can be taken: what comes waits in the network, and then
            at the broker.
    """

    def __init__(
        self,
        settings: MqttSource,
        wanted: Callable[[], Wanted],
        *,
        on_connected: Callable[[bool], None],
        on_messages: Callable[[Sequence[Message]], None],
        on_subscribed: Callable[[Sequence[str], Mapping[str, str]], None],
        on_unsubscribed: Callable[[Sequence[str]], None],
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._wanted = wanted
        self._on_connected = on_connected
        self._on_messages = on_messages
        self._on_subscribed = on_subscribed
        self._on_unsubscribed = on_unsubscribed
        self._is_full = is_full
        self._asked: frozenset[str] = frozenset()
        self._answers: dict[str, Answer] = {}
        self._may_subscribe = False
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

    def _make_client(self) -> Client:
        kind = PahoClient if self._settings.client == "paho" else Mqtt5Client
        return kind(self._settings, self._open_socket, self)

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
        client = self._client
        try:
            client.connect()
        except OSError as error:
            return mqtt_failures.not_reached(error, self._settings)
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            try:
                self._loop(selector)
            finally:
                client.close()
        return self._end or "the connection was closed"

    def _loop(self, selector: selectors.BaseSelector) -> None:
        client = self._client
        if not client.is_open:
            return
        answer_by = time.monotonic() + ANSWER_TIMEOUT_S
        watched = 0
        while client.is_open and self._end is None:
            paused = self._accepted and self._is_full()
            wanted = 0 if paused else selectors.EVENT_READ
            if not self._flush():
                wanted |= selectors.EVENT_WRITE
            watched = _watch(selector, client, watched, wanted)
            readable = client.readable and not paused
            poll_s = 0.0 if readable else min(_LONGEST_POLL_S, client.keepalive_s / 4)
            ready = {key.fileobj for key, _ in selector.select(poll_s)}
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4_096)
            if not paused and (client in ready or client.readable):
                client.read()
            if self._end is None:
                self._write()
            if self._stopping and not self._acknowledgements:
                self._end = "stopped"
                client.disconnect()
            client.look_after(paused=paused)
            if not self._accepted and time.monotonic() > answer_by:
                self._end = f"no answer to CONNECT within {ANSWER_TIMEOUT_S:.0f} s"

    def _flush(self) -> bool:
        try:
            return self._client.flush()
        except OSError as error:
            self.broke(error.strerror or str(error))
            return True

    def _write(self) -> None:
        if self._subscribe_due:
            self._subscribe_due = False
            self._subscribe()
        while self._acknowledgements:
            self._client.acknowledge(self._acknowledgements.popleft())

    def _subscribe(self) -> None:
        wanted = self._wanted()
        self._asked, self._answers = frozenset(wanted.filters), {}
        # New ones first: where a wider filter makes room for narrower ones, nothing slips between.
        if wanted.filters:
            self._client.subscribe(wanted.filters)
        if wanted.stale:
            self._client.unsubscribe(wanted.stale)

    def accepted(self, *, session_present: bool) -> None:
        """As `Events.accepted`."""
        self._accepted = True
        self._accepted_at = time.monotonic()
        self._on_connected(session_present)

    def refused(self, reason: str) -> None:
        """As `Events.refused`."""
        if self._end is None:
            self._end = mqtt_failures.refused(reason, self._settings)

    def broke(self, reason: str) -> None:
        """As `Events.broke`."""
        if self._end is None:
            self._end = self._broken(reason)

    def came(self, messages: Sequence[Message]) -> None:
        """As `Events.came`."""
        self._on_messages(messages)

    def subscribed(self, filters: Sequence[str], answers: Sequence[Answer]) -> None:
        """As `Events.subscribed`; told onwards when all that was asked for is answered."""
        self._answers.update(zip(filters, answers, strict=False))
        if not self._asked <= self._answers.keys():
            return
        taken, refused = [], {}
        for topic_filter in sorted(self._asked):
            answer = self._answers[topic_filter]
            if answer.is_failure:
                refused[topic_filter] = answer.name
            elif answer.code == 0:
                refused[topic_filter] = "QoS 0 was granted instead of 1, messages may be lost"
            else:
                taken.append(topic_filter)
        self._on_subscribed(taken, refused)

    def unsubscribed(self, filters: Sequence[str], answers: Sequence[Answer]) -> None:
        """As `Events.unsubscribed`."""
        asked = zip(filters, answers, strict=False)
        self._on_unsubscribed([topic for topic, answer in asked if not answer.is_failure])

    def _broken(self, detail: str) -> str:
        """Why the connection broke off, without a word of the broker's."""
        if not self._accepted:
            return mqtt_failures.closed_early(self._settings, detail)
        if time.monotonic() - self._accepted_at < STEADY_S:
            return mqtt_failures.closed_at_once(self._settings, detail)
        return f"the connection broke ({detail})"


def _watch(selector: selectors.BaseSelector, client: Client, watched: int, wanted: int) -> int:
    """Have a selector look for these events of a client, which may be none; returns them."""
    if wanted == watched:
        return watched
    if not watched:
        selector.register(client, wanted)
    elif not wanted:
        selector.unregister(client)
    else:
        selector.modify(client, wanted)
    return wanted
