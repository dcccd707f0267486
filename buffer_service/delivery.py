"""What a source hands to the log, and what it gets back: the border between the two."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from iiot_platform.core.capture_log import Record


class Delivery(NamedTuple):
    """One message on its way into the log.

    Attributes:
        stream: the line that it belongs to.
        record: the message.
        token: opaque; handed back to the source once the record is durable.
        session: names the session at the broker, when a message that is not acknowledged comes
            again after a reconnect; None where there is no such thing.
        packet_id: names the message within the session until it is acknowledged.
    """

    stream: str
    record: Record
    token: object
    session: str | None = None
    packet_id: int = 0


class SessionStart(NamedTuple):
    """The broker knows nothing of an earlier session: nothing of it will come again.

    The token is handed back once this is durable; a source receives nothing before.
    """

    session: str
    token: object


class Skipped(NamedTuple):
    """A message that no line takes; it is acknowledged in its turn and not stored."""

    session: str
    packet_id: int
    token: object


Event = Delivery | SessionStart | Skipped


class SourceStatus(NamedTuple):
    """What `iiot status` says of a source."""

    state: Literal["connected", "connecting", "disconnected"]
    reason: str
    since_ms: int
    counts: dict[str, int]


class Source(Protocol):
    """Somewhere that messages come from.

    A source is bounded: what it has handed out or holds ready, and has not got back, never
    grows beyond a limit of its own.
    """

    @property
    def name(self) -> str:
        """The source's name in the plant file."""

    @property
    def status(self) -> SourceStatus:
        """The state of the connection; safe to ask from any thread."""

    @property
    def works(self) -> bool:
        """True while the source's thread or task goes on; safe to ask from any thread."""

    def start(self) -> None:
        """Connect, and reconnect for ever, in a thread of the source's own."""

    def drain(self) -> list[Event]:
        """Everything that has come since the last call, in order; never blocks."""

    def acknowledge(self, tokens: Sequence[object]) -> None:
        """These are durable: the source may forget them; tokens of a lost connection are void."""

    def stop(self) -> None:
        """Send the acknowledgements that are due and disconnect; returns within two seconds."""
