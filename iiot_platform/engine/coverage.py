"""Which share of an hour a line's log covers: what the gaps leave, those filled again left out."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from iiot_platform.core.clock import MS_PER_HOUR, hour_start_ms


class Lack(NamedTuple):
    """A record of a gap: [begin, end) in Unix ms, and whether history has closed it."""

    source: str
    begin_ms: int
    end_ms: int
    complete: bool


def open_gaps(records: Iterable[Lack]) -> list[tuple[int, int]]:
    """The times that are missing for good, apart and in order."""
    found = list(records)
    closed = {(one.source, one.begin_ms, one.end_ms) for one in found if one.complete}
    spans = sorted(
        (one.begin_ms, one.end_ms)
        for one in found
        if (one.source, one.begin_ms, one.end_ms) not in closed
    )
    apart: list[tuple[int, int]] = []
    for begin, end in spans:
        if apart and begin <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(apart[-1][1], end))
        elif end > begin:
            apart.append((begin, end))
    return apart


def covered_share(gaps: Sequence[tuple[int, int]], hour: int, now_ms: int) -> float:
    """The share of an hour, as far as it has passed, that lies in no gap; 1 before it begins."""
    begin = hour_start_ms(hour)
    return share_outside(gaps, begin, min(begin + MS_PER_HOUR, now_ms))


def share_outside(gaps: Sequence[tuple[int, int]], begin_ms: int, end_ms: int) -> float:
    """The share of [begin_ms, end_ms) that lies in no gap; 1 where it is empty."""
    if end_ms <= begin_ms:
        return 1.0
    missing = sum(max(0, min(end_ms, stop) - max(begin_ms, start)) for start, stop in gaps)
    return 1.0 - missing / (end_ms - begin_ms)
