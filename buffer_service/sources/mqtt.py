"""MQTT as a source: a persistent session at QoS 1, acknowledged once records are durable."""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

from buffer_service.delivery import Delivery, Event, SessionStart, Skipped, SourceStatus
from buffer_service.sessions_left import session_of
from buffer_service.sources.backoff import Backoff
from buffer_service.sources.inbox import Inbox
from buffer_service.sources.link_state import LinkState
from buffer_service.sources.mqtt_client import Message
from buffer_service.sources.mqtt_connection import STEADY_S, Connection, Wanted
from buffer_service.sources.mqtt_routing import Routing, prefix_of
from buffer_service.sources.mqtt_subscriptions import Subscriptions
from buffer_service.sources.sparkplug_rebirth import RebirthCompanion
from iiot_platform.config.plant import MqttSource
from iiot_platform.config.sparkplug import SparkplugNodes
from iiot_platform.core.capture_log import GAP_TOPIC, Record
from iiot_platform.core.clock import MS_PER_S, from_ms, now_ms, now_us
from iiot_platform.core.sparkplug import PREFIX

logger = logging.getLogger(__name__)

QOS0_LIMIT: Final = 20_000
"""Unacknowledged QoS 0 messages held at most; the broker's window does not bound these."""
_STOP_TIMEOUT_S: Final = 2.0
_SPARKPLUG: Final = PREFIX.encode()
_SUBSCRIBE_MS: Final = 1_000
"""How long a new session may take until it is subscribed."""
_NO_ACKNOWLEDGEMENT: Final = 0
_SESSION: Final = -1
_new: Final = tuple.__new__

Token = tuple[int, int]
"""Connection generation, and packet id, `_NO_ACKNOWLEDGEMENT` or `_SESSION`."""


class MqttReceiver:
    """Receives the lines of one broker.

    Memory is bounded: nothing is read while `held_bytes` of payloads are not yet durable. Beside
    that the broker sends no QoS 1 message beyond the Receive Maximum before older ones are
    acknowledged, where it keeps to it. QoS 0 messages have no such bound: beyond `QOS0_LIMIT` that
    are not yet durable they are dropped, and counted.

    Args:
        settings: the broker.
        streams: topic prefix to stream.
        filters: topic filters to subscribe.
        on_pressure: called when half the Receive Maximum waits, so that a commit comes early.
        subscriptions: the file that remembers what the session has subscribed.
        away_since_ms: when an earlier run that had a session was last known to receive.
        companion: asks Sparkplug nodes for their births.
    """

    def __init__(
        self,
        settings: MqttSource,
        *,
        streams: Mapping[str, str],
        filters: Sequence[str],
        on_pressure: Callable[[], None],
        subscriptions: Path | None = None,
        away_since_ms: int | None = None,
        companion: RebirthCompanion | None = None,
    ) -> None:
        self._settings = settings
        self._name = settings.name
        self._session = session_of(settings).text
        self._subscriptions = Subscriptions(subscriptions, self._session, settings.session_expiry_s)
        remembered = self._subscriptions.filters.items()
        self._routing = Routing(
            streams, filters, {prefix_of(each): stream for each, stream in remembered if stream}
        )
        self._inbox = Inbox(pressure_at=settings.receive_maximum // 2, on_pressure=on_pressure)
        self._connection: Connection | None = None
        self._generation = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{settings.name}")
        self._backoff = Backoff()
        self._link = LinkState(f"source '{settings.name}', {settings.host}:{settings.port}")
        self._qos0_taken = 0
        self._qos0_settled = 0
        self._qos0_dropped = 0
        self._qos0_streams: set[str] = set()
        self._qos0_told_at: int | None = None
        self._pauses = 0
        self._is_paused = False
        self._unmatched = 0
        self._connects = 0
        self._subscribed_filters = 0
        self._sessions_lost = 0
        self._away_since_ms = away_since_ms
        self._has_session = away_since_ms is not None
        self._taken_us = 0
        self._companion = companion

    @property
    def name(self) -> str:
        """The source's name in the plant file."""
        return self._settings.name

    @property
    def status(self) -> SourceStatus:
        """The state of the connection, with counts since the start."""
        state, reason, since_ms = self._link.now
        if state != "connected" and self._away_since_ms is not None:
            since_ms = self._away_since_ms  # an earlier run's outage goes on
        counts = {
            "connects": self._connects,
            "pauses": self._pauses,
            "subscribed": self._subscribed_filters,
            "qos0_dropped": self._qos0_dropped,
            "session": int(self._has_session),
            "sessions_lost": self._sessions_lost,
            "unmatched": self._unmatched,
            "waiting": len(self._inbox),
        }
        if self._companion is not None:
            counts["rebirths"] = self._companion.requests
        return SourceStatus(state, reason, since_ms, counts)

    @property
    def works(self) -> bool:
        """True while the thread lives."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Connect, and reconnect for ever."""
        self._thread.start()
        if self._companion is not None:
            self._companion.start()

    def drain(self) -> list[Event]:
        """Everything that has come since the last call, in order."""
        return self._inbox.drain()

    def acknowledge(self, tokens: Sequence[object]) -> None:
        """Acknowledge what the connection of now delivered; older connections' is void."""
        self._inbox.settle_drained()
        generation, connection = self._generation, self._connection
        packet_ids = []
        for delivered_by, packet_id in cast("Sequence[Token]", tokens):
            if packet_id == _NO_ACKNOWLEDGEMENT:
                self._qos0_settled += 1
            elif delivered_by != generation or connection is None:
                continue
            elif packet_id == _SESSION:
                connection.subscribe()
            else:
                packet_ids.append(packet_id)
        if packet_ids and connection is not None:
            connection.acknowledge(packet_ids)

    def take(
        self,
        streams: Mapping[str, str],
        filters: Sequence[str],
        nodes: Sequence[SparkplugNodes] = (),
    ) -> None:
        """Bring these lines from now on, and what the broker still holds of the others.

        Births are asked of these nodes.
        """
        if self._companion is not None:
            self._companion.follow(nodes)
        routing = self._routing.successor(streams, filters)
        if routing.same_as(self._routing):
            return
        self._routing = routing
        connection = self._connection
        if connection is not None:
            connection.refresh()

    def stop(self) -> None:
        """Send the acknowledgements that are due and disconnect; the session stays."""
        self._stopping.set()
        if self._companion is not None:
            self._companion.stop()
        connection = self._connection
        if connection is not None:
            connection.stop()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._generation += 1
            connection = Connection(
                self._settings,
                self._wanted,
                on_connected=self._connected,
                on_messages=self._take,
                on_subscribed=self._subscribed,
                on_unsubscribed=self._unsubscribed,
                is_full=self._is_full,
            )
            self._connection = connection
            if self._stopping.is_set():
                connection.stop()
            try:
                reason = connection.run()
            except Exception as error:  # the thread's boundary: capture goes on
                reason = f"unexpected failure: {error!r}"
                if not self._link.repeats(reason):
                    logger.exception("%s: unexpected failure", self._where)
            if not self._stopping.is_set():
                self._disconnected(reason)
                self._stopping.wait(self._backoff.next_s())
        self._link.set("disconnected", "stopped")

    @property
    def _where(self) -> str:
        return f"source '{self.name}', {self._settings.host}:{self._settings.port}"

    def _connected(self, session_present: bool) -> None:  # noqa: FBT001 - the only argument
        self._connects += 1
        if self._companion is not None:
            self._companion.forget()
        self._link.set("connecting", "subscribing")
        kind = "session resumed" if session_present else "new session"
        logger.info(
            "%s: connected, %s, taking %s", self._where, kind, ", ".join(self._routing.filters)
        )
        connection = self._connection
        if session_present and connection is not None:
            # Filters may be new since the session began; known ones bring nothing twice.
            connection.subscribe()
            if self._has_session and not self._settings.qos0_queued:
                self._miss_qos0()
        else:
            self._subscriptions.clear()
            had_session, self._has_session = self._has_session, True
            # Before the older tail is durably void, nothing of the new session may come.
            self._inbox.put(SessionStart(self._session, (self._generation, _SESSION)))
            if had_session:
                self._lose_session()
            self._inbox.press()
        self._qos0_streams.clear()
        self._has_session = True
        self._away_since_ms = None

    def _lose_session(self) -> None:
        """What the broker kept for us is gone: a gap in the log of every line."""
        self._sessions_lost += 1
        end_ms = now_ms() + _SUBSCRIBE_MS
        begin_ms = end_ms if self._away_since_ms is None else self._away_since_ms
        logger.warning(
            "%s: the broker has lost the session of client id '%s', with the messages that waited"
            " there since %s; a gap is written. See to its persistence, and to session_expiry_s",
            self._where,
            self._settings.client_id,
            f"{from_ms(begin_ms):%Y-%m-%d %H:%M:%S} UTC",
        )
        streams = set(self._routing.streams.values())
        self._write_gap(streams, begin_ms, end_ms, "the broker has lost the session")

    def _miss_qos0(self) -> None:
        """A session keeps no message of QoS 0: a gap for the lines that have such."""
        streams = self._subscriptions.qos0 & set(self._routing.streams.values())
        if not streams or self._away_since_ms is None:
            return
        logger.warning(
            "%s: messages of QoS 0 are missing since %s; a gap is written for %s. Publish with"
            " QoS 1, or have the broker queue them and say 'qos0_queued: true'",
            self._where,
            f"{from_ms(self._away_since_ms):%Y-%m-%d %H:%M:%S} UTC",
            ", ".join(sorted(streams)),
        )
        self._write_gap(streams, self._away_since_ms, now_ms(), "no session keeps QoS 0")
        self._qos0_told_at = self._qos0_taken

    def _write_gap(self, streams: Iterable[str], begin_ms: int, end_ms: int, reason: str) -> None:
        gap = {"begin_ms": begin_ms, "end_ms": max(begin_ms, end_ms), "reason": reason}
        payload = json.dumps(gap).encode()
        token = (self._generation, _NO_ACKNOWLEDGEMENT)
        for stream in sorted(streams):
            self._qos0_taken += 1
            record = Record(self._name, f"{GAP_TOPIC}{self._name}", payload, now_us())
            self._inbox.put(Delivery(stream, record, token))

    def _disconnected(self, reason: str) -> None:
        state, _, since_ms = self._link.now
        if self._away_since_ms is None and self._has_session:
            # a connection may have been dead for that long before it was found out
            dead_ms = round(1.5 * MS_PER_S * self._settings.keepalive_s)
            self._away_since_ms = max(now_ms() - dead_ms, self._taken_us // MS_PER_S)
        if state == "connected" and now_ms() - since_ms > STEADY_S * MS_PER_S:
            self._backoff.reset()
        self._link.failed(reason, self._backoff.attempts)

    def _wanted(self) -> Wanted:
        filters = self._routing.subscriptions()
        stale = sorted(self._subscriptions.filters.keys() - filters)
        if stale:
            logger.info("%s: leaving %s", self._where, ", ".join(stale))
        self._subscriptions.add(filters)
        return Wanted(tuple(filters), stale)

    def _unsubscribed(self, filters: Sequence[str]) -> None:
        # One that came back meanwhile is still wanted.
        self._subscriptions.discard(set(filters).difference(self._routing.filters))

    def _subscribed(self, taken: Sequence[str], refused: Mapping[str, str]) -> None:
        self._subscribed_filters = len(taken)
        reason = ""
        for topic_filter, why in refused.items():
            reason = f"subscription of '{topic_filter}' refused: {why}; check the access rules"
            logger.error("%s: %s", self._where, reason)
        self._link.set("connected", reason)

    def _take(self, messages: Sequence[Message]) -> None:
        routing, name, session, generation = (
            self._routing,
            self._name,
            self._session,
            self._generation,
        )
        taken_us = now_us()
        events: list[Event] = []
        size = 0
        companion, seen = self._companion, []
        for topic_bytes, payload, packet_id, qos, retain, dup in messages:
            topic, stream = routing[topic_bytes]
            if stream is None:
                self._count_unmatched(topic)
                if qos:
                    events.append(Skipped(session, packet_id, (generation, packet_id)))
                continue
            size += len(payload)
            # what the classes themselves would do, in a third of the time
            record = _new(Record, (name, topic, payload, taken_us, None, None, 0, retain, dup))
            if qos:
                token = (generation, packet_id)
                events.append(_new(Delivery, (stream, record, token, session, packet_id)))
            elif self._has_room(stream):
                events.append(Delivery(stream, record, (generation, _NO_ACKNOWLEDGEMENT)))
            else:
                continue
            if companion is not None and topic_bytes.startswith(_SPARKPLUG):
                seen.append((topic, payload))
        if events:
            self._taken_us = taken_us
            self._inbox.put_all(events, size)
        if companion is not None:
            for topic, payload in seen:
                companion.observe(topic, payload)

    def _is_full(self) -> bool:
        """Whether what was taken must become durable before more is."""
        was_paused = self._is_paused
        self._is_paused = self._inbox.held_bytes >= self._settings.held_bytes
        if self._is_paused and not was_paused:
            if self._pauses == 0:
                logger.warning(
                    "%s: %.0f MB wait for the disk, nothing more is read until they are durable"
                    " (held_bytes); such pauses are counted",
                    self._where,
                    self._inbox.held_bytes / 1e6,
                )
            self._pauses += 1
            self._inbox.press()
        return self._is_paused

    def _has_room(self, stream: str) -> bool:
        """Whether one more message of QoS 0 is taken; either way its line has such."""
        if stream not in self._qos0_streams:
            self._qos0_streams.add(stream)
            self._subscriptions.note_qos0(self._subscriptions.qos0 | {stream})
        if self._qos0_told_at is not None and self._qos0_settled >= self._qos0_told_at:
            # The gap is durable; from here on counts what this connection brings.
            self._qos0_told_at = None
            self._subscriptions.note_qos0(self._qos0_streams)
        if self._qos0_taken - self._qos0_settled >= QOS0_LIMIT:
            self._drop_qos0()
            return False
        self._qos0_taken += 1
        return True

    def _count_unmatched(self, topic: str) -> None:
        """A line that left the plant file is still subscribed."""
        if self._unmatched == 0:
            logger.warning("%s: no line takes topic '%s'; such are counted", self._where, topic)
        self._unmatched += 1

    def _drop_qos0(self) -> None:
        if self._qos0_dropped == 0:
            logger.error(
                "%s: %d messages wait for the disk, QoS 0 messages are dropped from now on; "
                "publish with QoS 1",
                self._where,
                QOS0_LIMIT,
            )
        self._qos0_dropped += 1
