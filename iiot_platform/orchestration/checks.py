"""What is checked of a line, from the log and the ledger."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from iiot_platform.core.clock import MS_PER_S
from iiot_platform.engine.engine import Engine

_US_PER_MS: Final = 1_000


@dataclass(frozen=True)
class Completeness:
    """Which offsets the log should have and has not.

    Attributes:
        offsets: how many were looked for.
        missing: half-open intervals that no segment holds.
    """

    offsets: int
    missing: tuple[tuple[int, int], ...]

    @property
    def passed(self) -> bool:
        """True where every offset is there."""
        return not self.missing


@dataclass(frozen=True)
class Lag:
    """How long what is sealed has waited to be computed.

    Attributes:
        waiting: records that wait.
        waiting_s: since when the oldest of them does, 0 where none waits.
        limit_s: how long they may.
    """

    waiting: int
    waiting_s: float
    limit_s: float

    @property
    def passed(self) -> bool:
        """True where nothing waits for long."""
        return self.waiting_s <= self.limit_s


def completeness(engine: Engine, line: str, ranges: Iterable[tuple[int, int]]) -> Completeness:
    """Compares ranges of offsets with the manifest of the log.

    What retention has deleted is not looked for: its readings stand.
    """
    offsets = 0
    missing: list[tuple[int, int]] = []
    start = engine.log.start(line)
    for lo, hi in ranges:
        reached = max(lo, min(hi, start))
        offsets += hi - reached
        for segment in engine.log.segments(line, lo, hi):
            if segment.lo > reached:
                missing.append((reached, segment.lo))
            reached = max(reached, segment.hi)
        if reached < hi:
            missing.append((reached, hi))
    return Completeness(offsets, tuple(missing))


def lag(engine: Engine, line: str, *, now_ms: int, limit_s: float) -> Lag:
    """Measures the backlog of a line.

    Args:
        engine: has the log and the ledger.
        line: name of the line.
        now_ms: the current time.
        limit_s: how long a record may wait.
    """
    watermark, head = engine.ledger.watermark(line), engine.log.head(line)
    segments = engine.log.segments(line, watermark, watermark + 1) if head > watermark else []
    if not segments:
        return Lag(0, 0.0, limit_s)
    since_ms = segments[0].max_received // _US_PER_MS
    return Lag(head - watermark, max(0, now_ms - since_ms) / MS_PER_S, limit_s)
