"""Outages of one server: when they began and ended, and which values stand at their edges."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

_MOST_PENDING: Final = 16


class Edge(NamedTuple):
    """A value next to a gap: its source time (Unix us) and a hash of its payload."""

    source_us: int | None
    payload: int


@dataclass
class Gap:
    """Values may be missing from `begin_ms` to before `end_ms` (Unix ms).

    Attributes:
        reason: why.
        history_ms: from here on the history is read.
        recorded: True where it stands in the log.
        before: by topic the last value that was captured before; empty where nobody knows it.
        after: by topic the first one afterwards.
        done: topics whose history is in the log.
        counts: by stream the values that the history had.
        attempts: to read the history.
    """

    begin_ms: int
    end_ms: int
    reason: str
    history_ms: int
    recorded: bool = True
    before: dict[str, Edge] = field(default_factory=dict)
    after: dict[str, Edge] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    attempts: int = 0


class Outages:
    """What was lost, and what the history of the server is still to be asked for.

    Args:
        away_since_ms: when an earlier run was last known to receive; None at the first.
        first_history_s: how much history the first connection is to bring.
    """

    def __init__(self, away_since_ms: int | None, first_history_s: float = 0.0) -> None:
        self._open: tuple[int, str, dict[str, Edge]] | None = None
        if away_since_ms is not None:
            self._open = (away_since_ms, "the buffer was not running", {})
        self._first_ms = round(1_000 * first_history_s) if away_since_ms is None else 0
        self._last: dict[str, Edge] = {}
        self._first: dict[str, Edge] = {}
        self._cut: dict[str, Edge] | None = None
        self.pending: deque[Gap] = deque(maxlen=_MOST_PENDING)
        """Gaps whose history was not read yet, the oldest first."""

    def note(self, topic: str, edge: Edge) -> None:
        """A value has come live."""
        if topic not in self._last:
            self._first[topic] = edge
        self._last[topic] = edge

    @property
    def is_open(self) -> bool:
        """True while values are missing and no end is in sight."""
        return self._open is not None

    def begin(self, begin_ms: int, reason: str) -> None:
        """The connection is lost for good; nothing where it was before."""
        if self._open is None:
            self._open = (begin_ms, reason, self._rest())

    def end(self, end_ms: int) -> Gap | None:
        """Values come again: the gap that ends, None where there was none."""
        if self._open is None:
            if self._first_ms:
                begin_ms = end_ms - self._first_ms
                self._wait(Gap(begin_ms, end_ms, "the first start", begin_ms, recorded=False))
            return None
        begin_ms, reason, before = self._open
        history_ms = min(begin_ms, end_ms - self._first_ms)
        gap = Gap(begin_ms, end_ms, reason, history_ms, before=before)
        self._open = None
        self._wait(gap)
        return gap

    def cut(self) -> None:
        """The connection is away; what the server keeps may close the gap."""
        if self._cut is None:
            self._cut = self._rest()

    def resumed(self) -> None:
        """What the server has kept comes: nothing is missing."""
        self._last = (self._cut or {}) | self._last
        self._cut = None

    def lacking(self, begin_ms: int, end_ms: int, reason: str) -> Gap:
        """The cut was longer than the server keeps values."""
        gap = Gap(begin_ms, end_ms, reason, begin_ms, before=self._cut or {})
        self._cut = None
        self._wait(gap)
        return gap

    def _wait(self, gap: Gap) -> None:
        """Its history is to be read; beyond a bound the oldest is let go, as an open gap."""
        gap.after, self._first_ms = self._first, 0
        self.pending.append(gap)

    def _rest(self) -> dict[str, Edge]:
        """The last values before a silence; the ones after it are told from them."""
        before, self._last, self._first = (self._cut or {}) | self._last, {}, {}
        self._cut = None
        return before
