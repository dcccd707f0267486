"""What the next commit will hold; a batch that failed to commit is kept and goes on growing."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from buffer_service.delivery import Delivery, Event, SessionStart, Skipped
from buffer_service.log.tail import Fingerprints, fingerprint

if TYPE_CHECKING:
    from iiot_platform.core.capture_log import Record

LoadTail = Callable[[str], Fingerprints]
"""Looks up the committed deliveries of a session."""


class Batch:
    """Records by stream, the redelivery tail that goes with them, and what to acknowledge.

    Its size is bounded by what the sources may have unacknowledged: a message that comes again
    while the batch waits is found here by its packet id and takes no further room.

    Attributes:
        records: by stream, in the order of arrival.
        deliveries: by session, packet id to fingerprint, in the order to acknowledge.
        started: sessions whose older tail is void.
        dropped: messages left out because they are in the log already, by stream.
    """

    def __init__(self, load_tail: LoadTail) -> None:
        self.records: defaultdict[str, list[Record]] = defaultdict(list)
        self.deliveries: defaultdict[str, dict[int, bytes]] = defaultdict(dict)
        self.started: set[str] = set()
        self.dropped: defaultdict[str, int] = defaultdict(int)
        self._load_tail = load_tail
        self._tails: dict[str, Fingerprints] = {}
        self._tokens: defaultdict[str, dict[tuple[str, int], object]] = defaultdict(dict)
        self._other_tokens: defaultdict[str, list[object]] = defaultdict(list)

    def __bool__(self) -> bool:
        return bool(self._tokens or self._other_tokens)

    def __len__(self) -> int:
        return sum(map(len, self.records.values()))

    def add(self, source: str, events: Iterable[Event]) -> None:
        """Take what a source has drained, in order."""
        tokens, other_tokens = self._tokens[source], self._other_tokens[source]
        all_records, all_deliveries = self.records, self.deliveries
        for event in events:
            if not isinstance(event, Delivery):
                self._note(event, tokens, other_tokens)
                continue
            stream, record, token, session, packet_id = event
            if session is None:
                all_records[stream].append(record)
                other_tokens.append(token)
                continue
            digest = fingerprint(record)
            deliveries = all_deliveries[session]
            if record.dup and self._holds(session, packet_id, digest):
                self.dropped[stream] += 1
                # The order to acknowledge is that of the connection that delivers now.
                deliveries.pop(packet_id, None)
                tokens.pop((session, packet_id), None)
            else:
                all_records[stream].append(record)
            deliveries[packet_id] = digest
            tokens[session, packet_id] = token
        if not tokens:
            del self._tokens[source]
        if not other_tokens:
            del self._other_tokens[source]

    def _note(
        self,
        event: SessionStart | Skipped,
        tokens: dict[tuple[str, int], object],
        other_tokens: list[object],
    ) -> None:
        """Take what brings no record."""
        if isinstance(event, SessionStart):
            self._start_session(event.session)
            other_tokens.append(event.token)
        else:
            tokens.pop((event.session, event.packet_id), None)
            tokens[event.session, event.packet_id] = event.token

    def tokens(self) -> dict[str, list[object]]:
        """What to acknowledge once the batch is durable, by source, in order of delivery."""
        sources = (*self._other_tokens, *self._tokens)
        return {
            source: [
                *self._other_tokens.get(source, ()),
                *self._tokens.get(source, {}).values(),
            ]
            for source in sources
        }

    def waiting(self, source: str) -> int:
        """How much of a source waits to be acknowledged."""
        return len(self._tokens.get(source, ())) + len(self._other_tokens.get(source, ()))

    def _start_session(self, session: str) -> None:
        self.started.add(session)
        self.deliveries[session] = {}
        self._tails[session] = {}

    def _holds(self, session: str, packet_id: int, digest: bytes) -> bool:
        """True where the latest delivery under this packet id was this very message."""
        latest = self.deliveries[session].get(packet_id)
        if latest is None:
            if session not in self._tails:
                self._tails[session] = self._load_tail(session)
            latest = self._tails[session].get(packet_id)
        return latest == digest
