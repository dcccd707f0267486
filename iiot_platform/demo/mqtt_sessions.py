"""Sessions of the demo's broker: what each client has subscribed and not yet acknowledged."""

import asyncio
import itertools
from collections import deque
from typing import Final, Protocol

from iiot_platform.demo import mqtt_packets as mqtt
from iiot_platform.demo.mqtt_packets import Publish

QUEUE_BYTES: Final = 256 * 1024 * 1024
_SHORTEST_QUEUE_SHARE: Final = 2
_TAKEN_OVER: Final = 0x8E


class Link(Protocol):
    """What a session knows of its client's connection."""

    def pump(self) -> None:
        """Send what the client's window has room for."""

    def pause(self) -> None:
        """Read nothing for a while."""

    def resume(self) -> None:
        """Read again."""

    def close(self, reason: int | None = None) -> None:
        """End the connection."""


class Session:
    """What a client has subscribed, and what it has not acknowledged."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.filters: dict[str, int] = {}
        self.queue: deque[Publish] = deque()
        self.queued_bytes = 0
        self.in_flight: dict[int, Publish] = {}
        self.connection: Link | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self._ids = itertools.cycle(range(1, 65_536))

    def put(self, message: Publish) -> None:
        """Queue a message for the client."""
        if self.connection is None and not message.qos:
            return
        self.queue.append(message)
        self.queued_bytes += len(message.payload)

    def next_packets(self, room: int, level: int) -> list[bytes]:
        """The packets that may be sent now; `room` is what the client's window leaves."""
        packets = []
        while self.queue and (room > 0 or not self.queue[0].qos):
            message = self.queue.popleft()
            self.queued_bytes -= len(message.payload)
            if message.qos:
                packet_id = next(i for i in self._ids if i not in self.in_flight)
                message = message._replace(packet_id=packet_id)
                self.in_flight[packet_id] = message
                room -= 1
            packets.append(mqtt.publish(message, level))
        return packets


class Sessions:
    """All sessions and the connections that they have now.

    Args:
        queue_bytes: payload bytes that a session may have queued before publishers wait.
    """

    def __init__(self, *, queue_bytes: int = QUEUE_BYTES) -> None:
        self._queue_bytes = queue_bytes
        self._sessions: dict[str, Session] = {}
        self._routes: dict[str, list[tuple[Session, int]]] = {}
        self._paused: set[Link] = set()
        self._names = itertools.count(1)

    def close(self) -> None:
        """End every connection."""
        for session in list(self._sessions.values()):
            if session.connection is not None:
                session.connection.close()

    def attach(self, connection: Link, asked: mqtt.Connect) -> tuple[Session, bool]:
        """The session of a client that connects, and whether it was there before."""
        client_id = asked.client_id or f"client-{next(self._names)}"
        session = self._sessions.get(client_id)
        if session is not None and session.connection is not None:
            former, session.connection = session.connection, None
            former.close(_TAKEN_OVER)
        if session is not None and session.expiry is not None:
            session.expiry.cancel()
            session.expiry = None
        present = session is not None and not asked.clean_start
        if session is None or not present:
            session = Session(client_id)
            self._sessions[client_id] = session
            self._routes.clear()
        session.connection = connection
        return session, present

    def detach(self, session: Session, expiry_s: int) -> None:
        """Keep the session of a client that has gone for as long as it asked for."""
        session.connection = None
        if expiry_s:
            loop = asyncio.get_running_loop()
            session.expiry = loop.call_later(expiry_s, self._forget, session)
        else:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]
        self._routes.clear()
        session.queue.clear()
        session.queued_bytes = 0
        self.relieve()

    def subscribe(self, session: Session, pattern: str, qos: int) -> None:
        """Give a session the messages that match from now on."""
        session.filters[pattern] = qos
        self._routes.clear()

    def unsubscribe(self, session: Session, pattern: str) -> bool:
        """No longer; False where it was not subscribed."""
        self._routes.clear()
        return session.filters.pop(pattern, None) is not None

    def route(self, message: Publish) -> list[Session]:
        """Queue a message in every session that wants it; returns these."""
        routes = self._routes.get(message.topic)
        if routes is None:
            routes = self._routes[message.topic] = self._find(message.topic)
        for session, qos in routes:
            session.put(message if qos >= message.qos else message._replace(qos=qos))
        return [session for session, _ in routes]

    def _find(self, topic: str) -> list[tuple[Session, int]]:
        found = []
        for session in self._sessions.values():
            granted = [q for pattern, q in session.filters.items() if mqtt.matches(pattern, topic)]
            if granted:
                found.append((session, max(granted)))
        return found

    def press(self, connection: Link) -> None:
        """Stop reading from a publisher while the queue of somebody else is full."""
        full = [s for s in self._sessions.values() if s.queued_bytes > self._queue_bytes]
        # a client whose own queue is full must be heard: it is its acknowledgements that help
        if full and all(session.connection is not connection for session in full):
            connection.pause()
            self._paused.add(connection)

    def relieve(self) -> None:
        """Read again once every queue is short."""
        limit = self._queue_bytes // _SHORTEST_QUEUE_SHARE
        if self._paused and all(s.queued_bytes <= limit for s in self._sessions.values()):
            for connection in self._paused:
                connection.resume()
            self._paused.clear()

    def gone(self, connection: Link) -> None:
        """Forget a connection that has ended."""
        self._paused.discard(connection)
