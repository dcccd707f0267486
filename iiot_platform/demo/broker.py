"""A broker for machines without one: `python -m iiot_platform.demo.broker PORT`.

MQTT 3.1.1 and 5.0 on 127.0.0.1 with QoS 0 and 1, wildcards and sessions that outlive a
connection, in memory. No retained messages, wills, QoS 2, passwords or persistence: a plant
has a broker of its own. Where a session's queue is full its publishers wait; nothing is dropped.
"""

import asyncio
import itertools
import logging
import signal
import sys
from collections import deque
from typing import Final

from iiot_platform.demo import mqtt_packets as mqtt
from iiot_platform.demo.mqtt_packets import V5, Packet, Publish

logger = logging.getLogger("iiot_platform.demo.broker")

QUEUE_BYTES: Final = 256 * 1024 * 1024
_SHORTEST_QUEUE_SHARE: Final = 2
_RECEIVE_MAXIMUM: Final = 65_535
_MAX_QOS: Final = 1
_ACCEPTED: Final = 0x00
_NO_SUCH_SUBSCRIPTION: Final = 0x11
_UNSUPPORTED_VERSION: Final = {True: 0x84, False: 0x01}
_MALFORMED: Final = 0x81
_QOS_NOT_SUPPORTED: Final = 0x9B
_TAKEN_OVER: Final = 0x8E
_SHARED_NOT_SUPPORTED: Final = 0x9E
_LIMITS: Final = bytes(
    (
        *(mqtt.MAXIMUM_QOS, _MAX_QOS),
        *(mqtt.RETAIN_AVAILABLE, 0),
        *(mqtt.SUBSCRIPTION_IDS_AVAILABLE, 0),
        *(mqtt.SHARED_SUBSCRIPTIONS_AVAILABLE, 0),
        *(mqtt.RECEIVE_MAXIMUM, *_RECEIVE_MAXIMUM.to_bytes(2, "big")),
    )
)


class Session:
    """What a client has subscribed, and what it has not acknowledged."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.filters: dict[str, int] = {}
        self.queue: deque[Publish] = deque()
        self.queued_bytes = 0
        self.in_flight: dict[int, Publish] = {}
        self.connection: Connection | None = None
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


class Broker:
    """Sessions and the connections that they have now.

    Args:
        queue_bytes: payload bytes that a session may have queued before publishers wait.
    """

    def __init__(self, *, queue_bytes: int = QUEUE_BYTES) -> None:
        self._queue_bytes = queue_bytes
        self._sessions: dict[str, Session] = {}
        self._routes: dict[str, list[tuple[Session, int]]] = {}
        self._paused: set[Connection] = set()
        self._names = itertools.count(1)

    async def serve(self, port: int, *, stopping: asyncio.Event) -> None:
        """Serve on 127.0.0.1 until `stopping` is set."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), "127.0.0.1", port)
        async with server:
            await stopping.wait()
            for session in list(self._sessions.values()):
                if session.connection is not None:
                    session.connection.close()

    def attach(self, connection: "Connection", asked: mqtt.Connect) -> tuple[Session, bool]:
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

    def press(self, connection: "Connection") -> None:
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

    def gone(self, connection: "Connection") -> None:
        """Forget a connection that has ended."""
        self._paused.discard(connection)


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._session: Session | None = None
        self._level = V5
        self._window = _RECEIVE_MAXIMUM
        self._expiry_s = 0
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, orderly or not."""
        self._broker.gone(self)
        if self._session is not None and self._session.connection is self:
            self._broker.detach(self._session, self._expiry_s)
        if exc is not None:
            logger.info("a connection broke: %s", exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come: answer what is complete."""
        self._buffer += data
        touched: set[Session] = set()
        answers: list[bytes] = []
        try:
            if self._session is None and self._buffer[0] >> 4 != mqtt.CONNECT:
                raise mqtt.MalformedPacketError("the first packet should be CONNECT")
            for packet in mqtt.packets(self._buffer):
                self._handle(packet, answers, touched)
        except mqtt.MalformedPacketError as error:
            logger.warning("%s", error)
            self.close(_MALFORMED)
            return
        if answers:
            self._write(b"".join(answers))
        for session in touched:
            if session.connection is not None:
                session.connection.pump()
        self._broker.press(self)

    def pause_writing(self) -> None:
        """The client reads too slowly: keep what it should get in its session."""
        self._writable = False

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable = True
        self.pump()

    def pause(self) -> None:
        """Read nothing for a while."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def pump(self) -> None:
        """Send what the client's window has room for."""
        session = self._session
        if session is None or session.connection is not self or not self._writable:
            return
        packets = session.next_packets(self._window - len(session.in_flight), self._level)
        if packets:
            self._write(b"".join(packets))
            self._broker.relieve()

    def close(self, reason: int | None = None) -> None:
        """End the connection, with a reason where the protocol has a place for it."""
        if self._transport is None:
            return
        if reason is not None and self._level == V5:
            self._write(mqtt.encode(mqtt.DISCONNECT, bytes((reason, 0))))
        self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _handle(self, packet: Packet, answers: list[bytes], touched: set[Session]) -> None:
        session = self._session
        if session is None:
            self._connect(packet, touched)
        elif packet.kind == mqtt.PUBLISH:
            self._publish(packet, answers, touched)
        elif packet.kind == mqtt.PUBACK:
            session.in_flight.pop(mqtt.Reader(packet.body).number(2), None)
            touched.add(session)
        elif packet.kind == mqtt.SUBSCRIBE:
            answers.append(self._subscribe(session, packet))
        elif packet.kind == mqtt.UNSUBSCRIBE:
            answers.append(self._unsubscribe(session, packet))
        elif packet.kind == mqtt.PINGREQ:
            answers.append(mqtt.encode(mqtt.PINGRESP, b""))
        elif packet.kind == mqtt.DISCONNECT:
            self.close()
        else:
            raise mqtt.MalformedPacketError(f"a client may not send packet type {packet.kind}")

    def _connect(self, packet: Packet, touched: set[Session]) -> None:
        if packet.kind != mqtt.CONNECT:
            raise mqtt.MalformedPacketError("the first packet should be CONNECT")
        asked = mqtt.read_connect(packet.body)
        if asked.level not in {mqtt.V311, V5}:
            code = _UNSUPPORTED_VERSION[asked.level > V5]
            self._write(mqtt.encode(mqtt.CONNACK, bytes((0, code))))
            self.close()
            return
        self._level = asked.level
        self._window = asked.receive_maximum
        self._expiry_s = asked.session_expiry_s
        self._session, present = self._broker.attach(self, asked)
        body = bytes((present, _ACCEPTED))
        if asked.level == V5:
            properties = _LIMITS
            if not asked.client_id:
                assigned = mqtt.text(self._session.client_id)
                properties += bytes((mqtt.ASSIGNED_CLIENT_ID,)) + assigned
            body += mqtt.variable(len(properties)) + properties
        again = [mqtt.publish(m, self._level, dup=True) for m in self._session.in_flight.values()]
        self._write(mqtt.encode(mqtt.CONNACK, body) + b"".join(again))
        touched.add(self._session)

    def _publish(self, packet: Packet, answers: list[bytes], touched: set[Session]) -> None:
        message = mqtt.read_publish(packet, self._level)
        if message.qos > _MAX_QOS:
            self.close(_QOS_NOT_SUPPORTED)
            return
        touched.update(self._broker.route(message))
        if message.qos:
            answers.append(mqtt.encode(mqtt.PUBACK, message.packet_id.to_bytes(2, "big")))

    def _subscribe(self, session: Session, packet: Packet) -> bytes:
        packet_id, filters = mqtt.read_subscriptions(packet, self._level)
        codes = bytearray()
        for pattern, qos in filters:
            if pattern.startswith("$share/"):
                codes.append(_SHARED_NOT_SUPPORTED if self._level == V5 else 0x80)
                continue
            self._broker.subscribe(session, pattern, min(qos, _MAX_QOS))
            codes.append(min(qos, _MAX_QOS))
        return self._answer(mqtt.SUBACK, packet_id, bytes(codes))

    def _unsubscribe(self, session: Session, packet: Packet) -> bytes:
        packet_id, filters = mqtt.read_subscriptions(packet, self._level)
        known = [self._broker.unsubscribe(session, pattern) for pattern, _ in filters]
        codes = bytes(_ACCEPTED if was else _NO_SUCH_SUBSCRIPTION for was in known)
        return self._answer(mqtt.UNSUBACK, packet_id, codes if self._level == V5 else b"")

    def _answer(self, kind: int, packet_id: int, codes: bytes) -> bytes:
        properties = b"\0" if self._level == V5 else b""
        return mqtt.encode(kind, packet_id.to_bytes(2, "big") + properties + codes)


async def _serve(port: int) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    logger.info("listening on 127.0.0.1:%d", port)
    await Broker().serve(port, stopping=stopping)


def main() -> None:
    """Serve on the port that is given."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
