"""How often the same work has been asked for: the memory of a sensor, kept in its cursor."""

import json
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from iiot_platform.core.clock import MS_PER_S

FIRST_BACKOFF_S: Final = 5
MAX_BACKOFF_S: Final = 300


class Asked(NamedTuple):
    """The last request for one piece of work.

    Attributes:
        state: what the work started from; a new state is new work.
        attempt: counted from 1.
        at_ms: when it was made.
    """

    state: int
    attempt: int
    at_ms: int

    @property
    def due_ms(self) -> int:
        """When the next attempt may be made: the second at once, later ones ever more slowly."""
        if self.attempt == 1:
            return self.at_ms
        wait_s = min(FIRST_BACKOFF_S << min(self.attempt - 2, 16), MAX_BACKOFF_S)
        return self.at_ms + wait_s * MS_PER_S


@dataclass
class Memory:
    """What the sensor remembers from tick to tick; losing it costs nothing but an attempt.

    Attributes:
        asked: last request per piece of work.
        observed: per line, when its log was last observed and up to which offset.
        lagging: per line that lags, when that was last told.
    """

    asked: dict[str, Asked] = field(default_factory=dict)
    observed: dict[str, tuple[int, int]] = field(default_factory=dict)
    lagging: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Self:
        """The memory that a cursor holds; an empty one where it holds none that can be read."""
        try:
            body: dict[str, Any] = json.loads(cursor or "{}")
            return cls(
                {work: Asked(*(int(n) for n in asked)) for work, asked in body["asked"].items()},
                {line: (int(at), int(head)) for line, (at, head) in body["observed"].items()},
                {line: int(at) for line, at in body["lagging"].items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()

    @property
    def cursor(self) -> str:
        """The memory as text."""
        body = {"asked": self.asked, "observed": self.observed, "lagging": self.lagging}
        return json.dumps(body, separators=(",", ":"))

    def wait_ms(self, work: str, state: int, now_ms: int) -> int:
        """How long to wait before the work may be asked for again; 0: it may be now."""
        last = self.asked.get(work)
        return max(0, last.due_ms - now_ms) if last is not None and last.state == state else 0

    def ask(self, work: str, state: int, now_ms: int) -> int:
        """Remembers a request; returns its attempt."""
        last = self.asked.get(work)
        attempt = last.attempt + 1 if last is not None and last.state == state else 1
        self.asked[work] = Asked(state, attempt, now_ms)
        return attempt

    def forget(self, prefix: str, *, keep: set[str]) -> None:
        """Forgets the work whose name starts with `prefix`, apart from what to keep."""
        for work in [w for w in self.asked if w.startswith(prefix) and w not in keep]:
            del self.asked[work]
