"""Which run begins next: live runs first, and some workers that only they may take."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

MAX_WAIT_S: Final = 30.0
"""After it a run begins beside all others; Dagster gives up on runs that do not begin for 60 s."""


@dataclass(frozen=True)
class Limits:
    """How much runs at once.

    Attributes:
        size: runs at once.
        others: how many of them may be other than live.
        live_queue: live runs that may wait.
        others_queue: other runs that may wait.
        runs_per_worker: after so many a worker is replaced.
        rss_mb: a worker that has grown beyond it is replaced.
    """

    size: int = 4
    others: int = 2
    live_queue: int = 64
    others_queue: int = 16
    runs_per_worker: int = 50
    rss_mb: int = 600

    def __post_init__(self) -> None:
        """Checks that live runs have a worker."""
        if not 0 < self.others < self.size:
            raise ValueError(f"others: got {self.others}; should be 1 to {self.size - 1}")

    @property
    def most(self) -> int:
        """Runs at once where some have waited for long."""
        return self.size + self.others_queue


@dataclass(frozen=True)
class PoolRun:
    """A run that was handed to the pool.

    Attributes:
        run_id: its id.
        live: True for the next micro-batch of a line.
        since_s: monotonic time at which it came.
    """

    run_id: str
    live: bool
    since_s: float


@dataclass
class Lineup:
    """The runs that wait, each kind in its order."""

    limits: Limits
    _live: deque[PoolRun] = field(default_factory=deque, init=False)
    _others: deque[PoolRun] = field(default_factory=deque, init=False)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._live) + len(self._others)

    def refusal(self, run: PoolRun) -> str | None:
        """Why the run can not even wait; None where it can."""
        bound = self.limits.live_queue if run.live else self.limits.others_queue
        if len(self._queue(run)) < bound:
            return None
        return f"{bound} {'live' if run.live else 'other'} runs wait already"

    def add(self, run: PoolRun) -> None:
        """Lets a run wait."""
        self._queue(run).append(run)

    def remove(self, run_id: str) -> bool:
        """Takes out a run that waits; False where it does not."""
        for queue in (self._live, self._others):
            for run in queue:
                if run.run_id == run_id:
                    queue.remove(run)
                    return True
        return False

    def holds(self, run_id: str) -> bool:
        """True where the run waits."""
        return any(run.run_id == run_id for run in (*self._live, *self._others))

    def take(self, running: Collection[PoolRun], now_s: float) -> PoolRun | None:
        """The run that may begin now beside those that are running."""
        free = len(running) < self.limits.size
        more = len(running) < self.limits.most
        if self._live and (free or (more and self._waited(self._live, now_s))):
            return self._live.popleft()
        others = sum(not run.live for run in running)
        free = free and others < self.limits.others
        if self._others and (free or (more and self._waited(self._others, now_s))):
            return self._others.popleft()
        return None

    def clear(self) -> list[PoolRun]:
        """All that wait, who now wait no more."""
        waiting = [*self._live, *self._others]
        self._live.clear()
        self._others.clear()
        return waiting

    def _queue(self, run: PoolRun) -> deque[PoolRun]:
        return self._live if run.live else self._others

    @staticmethod
    def _waited(queue: deque[PoolRun], now_s: float) -> bool:
        return now_s - queue[0].since_s > MAX_WAIT_S
