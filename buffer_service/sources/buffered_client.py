"""paho's client with a faster path for messages.

paho reads a message in three or four system calls, builds an object of all 27 properties that
MQTT 5 knows for it, and sends each acknowledgement by itself. Here some hundred messages share
one system call each way, and what nobody reads is not built.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode

_READ_BYTES: Final = 65_536
_CLOSE_TIMEOUT_S: Final = 1.0


class BufferedSocket:
    """Non-blocking; what `send` takes goes out with the next `flush`."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self._ahead = b""
        self._at = 0
        self._unsent = bytearray()

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes, from what was read ahead where there is some.

        Raises:
            BlockingIOError: nothing has come.
            ssl.SSLError: likewise over TLS, or the connection is broken.
        """
        at = self._at
        if at == len(self._ahead):
            ahead = self._inner.recv(max(size, _READ_BYTES))
            if len(ahead) <= size:
                return ahead
            self._ahead, self._at, at = ahead, 0, 0
        data = self._ahead[at : at + size]
        self._at = at + len(data)
        return data

    @property
    def readable(self) -> bool:
        """True where `recv` has bytes that no select shows."""
        if self._at < len(self._ahead):
            return True
        return isinstance(self._inner, ssl.SSLSocket) and self._inner.pending() > 0

    def send(self, data: bytes) -> int:
        """Take everything; `flush` sends it."""
        self._unsent += data
        return len(data)

    def flush(self) -> bool:
        """Send what was taken; False where some is left because the peer does not read.

        Raises:
            OSError: the connection is broken.
        """
        while self._unsent:
            try:
                sent = self._inner.send(self._unsent)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            del self._unsent[:sent]
        return True

    def fileno(self) -> int:
        """The kernel's number, for select."""
        return self._inner.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the socket's own signature
        """As a socket's."""
        self._inner.setblocking(flag)

    def close(self) -> None:
        """Send what is left, within a second, and close."""
        with contextlib.suppress(OSError):
            self._inner.settimeout(_CLOSE_TIMEOUT_S)
            if self._unsent:
                self._inner.sendall(self._unsent)
        self._inner.close()


class Message(NamedTuple):
    """A PUBLISH packet; `packet_id` is 0 at QoS 0."""

    topic: bytes
    payload: bytes
    packet_id: int
    qos: int
    retain: bool
    dup: bool


class BufferedClient(Client):
    """paho's client over a `BufferedSocket`, for MQTT 5 and subscriptions of QoS 0 and 1.

    Two private methods of paho are replaced; a test fails when a release no longer calls them.
    """

    open_socket: Callable[[], socket.socket]
    """Connects, with TLS where it is wanted."""
    on_publish_packet: Callable[[Message], None]
    """Called for each message, instead of `on_message`."""

    def _create_socket(self) -> Any:
        return BufferedSocket(self.open_socket())

    def _handle_publish(self) -> MQTTErrorCode:
        packet = self._in_packet
        try:
            message = parse_publish(packet["command"], packet["packet"])
        except IndexError:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        self.on_publish_packet(message)
        return MQTTErrorCode.MQTT_ERR_SUCCESS


def parse_publish(command: int, body: bytes | bytearray) -> Message:
    """The message of a PUBLISH packet of MQTT 5.

    Args:
        command: the first byte of the packet.
        body: what follows the remaining length.

    Raises:
        IndexError: the packet is cut short.
    """
    at = 2 + (body[0] << 8 | body[1])
    topic = bytes(body[2:at])
    qos = command >> 1 & 3
    packet_id = 0
    if qos:
        packet_id = body[at] << 8 | body[at + 1]
        at += 2
    length = shift = 0
    while True:
        byte = body[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the top bit says that the length goes on
            break
        shift += 7
    at += length
    if at > len(body):
        raise IndexError(at)
    return Message(topic, bytes(body[at:]), packet_id, qos, bool(command & 1), bool(command & 8))
