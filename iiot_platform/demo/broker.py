"""A broker for machines without one: `python -m iiot_platform.demo.broker PORT`.

MQTT 3.1.1 and 5.0 on 127.0.0.1 with QoS 0 and 1, wildcards and sessions that outlive a
connection, in memory. No retained messages, wills, QoS 2, passwords or persistence: a plant
has a broker of its own. Where a session's queue is full its publishers wait; nothing is dropped.
"""

import asyncio
import logging
import signal
import sys
from typing import Final

from iiot_platform.demo import mqtt_packets as mqtt
from iiot_platform.demo.mqtt_packets import V5, Packet
from iiot_platform.demo.mqtt_sessions import QUEUE_BYTES, Session, Sessions

logger = logging.getLogger("iiot_platform.demo.broker")

_RECEIVE_MAXIMUM: Final = 65_535
_MAX_QOS: Final = 1
_ACCEPTED: Final = 0x00
_NO_SUCH_SUBSCRIPTION: Final = 0x11
_UNSUPPORTED_VERSION: Final = {True: 0x84, False: 0x01}
_MALFORMED: Final = 0x81
_QOS_NOT_SUPPORTED: Final = 0x9B
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


class Broker:
    """A broker on one port of this machine.

    Args:
        queue_bytes: payload bytes that a session may have queued before publishers wait.
    """

    def __init__(self, *, queue_bytes: int = QUEUE_BYTES) -> None:
        self._sessions = Sessions(queue_bytes=queue_bytes)

    async def serve(self, port: int, *, stopping: asyncio.Event) -> None:
        """Serve on 127.0.0.1 until `stopping` is set."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self._sessions), "127.0.0.1", port)
        async with server:
            await stopping.wait()
            self._sessions.close()


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
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
        self._sessions.gone(self)
        if self._session is not None and self._session.connection is self:
            self._sessions.detach(self._session, self._expiry_s)
        if exc is not None:
            logger.info("a connection broke: %s", exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come: answer what is complete."""
        self._buffer += data
        touched: set[Session] = set()
        answers: list[bytes] = []
        try:
            self._expect_connect()
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
        self._sessions.press(self)

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
            self._sessions.relieve()

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

    def _expect_connect(self) -> None:
        """Refuse a stranger by the first byte, rather than wait for what will never be whole."""
        if self._session is None and self._buffer[0] >> 4 != mqtt.CONNECT:
            raise mqtt.MalformedPacketError("the first packet should be CONNECT")

    def _connect(self, packet: Packet, touched: set[Session]) -> None:
        asked = mqtt.read_connect(packet.body)
        if asked.level not in {mqtt.V311, V5}:
            code = _UNSUPPORTED_VERSION[asked.level > V5]
            self._write(mqtt.encode(mqtt.CONNACK, bytes((0, code))))
            self.close()
            return
        self._level = asked.level
        self._window = asked.receive_maximum
        self._expiry_s = asked.session_expiry_s
        self._session, present = self._sessions.attach(self, asked)
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
        touched.update(self._sessions.route(message))
        if message.qos:
            answers.append(mqtt.encode(mqtt.PUBACK, message.packet_id.to_bytes(2, "big")))

    def _subscribe(self, session: Session, packet: Packet) -> bytes:
        packet_id, filters = mqtt.read_subscriptions(packet, self._level)
        codes = bytearray()
        for pattern, qos in filters:
            if pattern.startswith("$share/"):
                codes.append(_SHARED_NOT_SUPPORTED if self._level == V5 else 0x80)
                continue
            self._sessions.subscribe(session, pattern, min(qos, _MAX_QOS))
            codes.append(min(qos, _MAX_QOS))
        return self._answer(mqtt.SUBACK, packet_id, bytes(codes))

    def _unsubscribe(self, session: Session, packet: Packet) -> bytes:
        packet_id, filters = mqtt.read_subscriptions(packet, self._level)
        known = [self._sessions.unsubscribe(session, pattern) for pattern, _ in filters]
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
