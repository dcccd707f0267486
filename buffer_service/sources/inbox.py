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
        self.press = on_pressure
        """Ask for a commit now."""
        self.taken = 0
        """Events that have come since the start."""

    def __len__(self) -> int:
        """Events that the committer has not fetched."""
        return len(self._events)

    @property
    def waiting(self) -> int:
        """Events that are not yet durable, where all of them are settled."""
        return self.taken - self._settled

    def put(self, event: Event) -> None:
        """An event has come."""
        self.put_all((event,))

    def put_all(self, events: Sequence[Event]) -> None:
        """Some events have come."""
        self.taken += len(events)
        self._events.extend(events)
        if len(self._events) - len(events) < self._pressure_at <= len(self._events):
            self.press()

    def drain(self) -> list[Event]:
        """Everything that has come since the last call, in order; never blocks."""
        events = self._events
        return [events.popleft() for _ in range(len(events))]

    def settle(self, count: int) -> None:
        """So many events are durable."""
        self._settled += count
