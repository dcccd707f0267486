"""What a source has taken and the committer has not fetched: the hand-over between two threads."""

from collections import deque
from collections.abc import Callable, Sequence

from buffer_service.delivery import Event


class Inbox:
    """Events in the order of their coming; a full one asks for an early commit.

    The source bounds what may come (by the broker's window, or by `waiting`); this counts.

    Args:
        pressure_at: events that wait when a commit shall come early.
        on_pressure: asks for it.
    """

    def __init__(self, *, pressure_at: int, on_pressure: Callable[[], None]) -> None:
        self._events: deque[Event] = deque()
        self._pressure_at = max(1, pressure_at)
        self._settled = 0
        self._drained = self._drained_bytes = self._settled_bytes = 0
        self._marks: deque[tuple[int, int]] = deque()
        self.press = on_pressure
        """Ask for a commit now."""
        self.taken = 0
        """Events that have come since the start."""
        self.taken_bytes = 0
        """The size of them."""

    def __len__(self) -> int:
        """Events that the committer has not fetched."""
        return len(self._events)

    @property
    def waiting(self) -> int:
        """Events that are not yet durable, where all of them are settled."""
        return self.taken - self._settled

    @property
    def held_bytes(self) -> int:
        """The size of what is not yet durable, where `settle_drained` is called."""
        return self.taken_bytes - self._settled_bytes

    def put(self, event: Event) -> None:
        """An event has come."""
        self.put_all((event,))

    def put_all(self, events: Sequence[Event], size: int = 0) -> None:
        """Some events have come, of so many bytes together."""
        self.taken += len(events)
        if size:
            self.taken_bytes += size
            # before its events, so that whoever has drained these finds it
            self._marks.append((self.taken, self.taken_bytes))
        self._events.extend(events)
        if len(self._events) - len(events) < self._pressure_at <= len(self._events):
            self.press()

    def drain(self) -> list[Event]:
        """Everything that has come since the last call, in order; never blocks."""
        events = self._events
        found = [events.popleft() for _ in range(len(events))]
        self._drained += len(found)
        while self._marks and self._marks[0][0] <= self._drained:
            _, self._drained_bytes = self._marks.popleft()
        return found

    def settle(self, count: int) -> None:
        """So many events are durable."""
        self._settled += count

    def settle_drained(self) -> None:
        """All that was drained is durable."""
        self._settled_bytes = self._drained_bytes
