"""What a connection needs of an MQTT client, whichever library reads and writes its packets."""

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from buffer_service.sources.mqtt_routing import SHARED

_FAILURE: Final = 0x80

OpenSocket = Callable[[], socket.socket]
"""Connects to the broker, with TLS where it is wanted."""


class Message(NamedTuple):
    """A PUBLISH packet; `packet_id` is 0 at QoS 0."""

    topic: bytes
    payload: bytes
    packet_id: int
    qos: int
    retain: bool
    dup: bool


class Answer(NamedTuple):
    """What the broker says to one topic filter: a reason code of MQTT 5 and its name."""

    code: int
    name: str

    @property
    def is_failure(self) -> bool:
        """True where the broker does not do what was asked."""
        return self.code >= _FAILURE


class Events(Protocol):
    """Whom a client tells what comes from the broker, in the thread that reads."""

    def accepted(self, *, session_present: bool) -> None:
        """The broker has let us in."""

    def refused(self, reason: str) -> None:
        """The broker does not let us in, or shows us out, and says why; nothing comes behind it."""

    def broke(self, reason: str) -> None:
        """The connection can not go on; nothing comes behind it."""

    def came(self, messages: Sequence[Message]) -> None:
        """Messages, in order; none is acknowledged by itself."""

    def subscribed(self, filters: Sequence[str], answers: Sequence[Answer]) -> None:
        """What became of filters that were asked for together."""

    def unsubscribed(self, filters: Sequence[str], answers: Sequence[Answer]) -> None:
        """Likewise of filters that were to go."""


class Client(Protocol):
    """MQTT 5 over one connection, for one thread; its socket never blocks once it is connected."""

    keepalive_s: int
    """How long the connection may be silent before the broker is asked whether it lives."""

    def connect(self) -> None:
        """Connect, and send CONNECT with the next `flush`.

        Raises:
            OSError: nobody is there, or TLS does not come about.
        """

    def fileno(self) -> int:
        """The socket's number, for select."""

    @property
    def is_open(self) -> bool:
        """True while there is a socket that may bring something."""

    @property
    def readable(self) -> bool:
        """True where `read` has bytes that no select shows."""

    def read(self) -> None:
        """Take what has come and tell it, some hundred messages at a time; never blocks."""

    def flush(self) -> bool:
        """Send what is due; False where some is left because the peer does not read.

        Raises:
            OSError: the connection is broken.
        """

    def look_after(self, *, paused: bool = False) -> None:
        """Ask a silent broker whether it lives, and tell when it does not; once a second.

        Args:
            paused: nothing is read, so that the broker may well have answered.
        """

    def subscribe(self, filters: Sequence[str]) -> None:
        """Ask for filters at QoS 1."""

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Let filters go."""

    def acknowledge(self, packet_ids: Iterable[int]) -> None:
        """Acknowledge in this order."""

    def disconnect(self) -> None:
        """Say goodbye; the session stays."""

    def close(self) -> None:
        """Close the socket; what is left to send goes out where the peer reads."""


def is_shared(topic_filter: str) -> bool:
    """True where others take a part of the messages.

    Retained messages come once; to a shared subscription never, where each member had them.
    """
    return topic_filter.startswith(SHARED)
