"""Which raw records go: by age, by size, or in need; never one that is not consumed.

Whole segments go, the oldest of a stream first, and never its newest.
"""

import sqlite3
from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

from buffer_service.log import manifest
from buffer_service.log.manifest import Segment, Trim
from iiot_platform.core.consumption import Consumption


class Limits(NamedTuple):
    """What may stay.

    Attributes:
        received_before_us: records received before this may go; None: age does not count.
        bytes: size of all segments; None: size does not count.
        free: bytes that must be freed now, whatever the age.
    """

    received_before_us: int | None = None
    bytes: int | None = None
    free: int = 0


class Verdict(NamedTuple):
    """What goes, and why not everything that should does.

    Attributes:
        trims: what goes, one stream each.
        held: bytes that should go but are not consumed.
    """

    trims: tuple[Trim, ...]
    held: int


def judge(
    connection: sqlite3.Connection, consumed: Mapping[str, Consumption], limits: Limits
) -> Verdict:
    """Chooses the segments that go.

    Args:
        connection: reads the manifest.
        consumed: what the platform has consumed; what it does not name is needed.
        limits: what may stay.
    """
    streams = {
        stream: list(found)
        for stream, found in groupby(manifest.segments(connection), key=lambda one: one.stream)
    }
    total = sum(segment.bytes for found in streams.values() for segment in found)
    surplus = max(limits.free, 0 if limits.bytes is None else total - limits.bytes)
    free = {name: _free(found, consumed.get(name)) for name, found in streams.items()}
    chosen: dict[str, int] = {}
    held = 0
    for stream, found in streams.items():
        old = limits.received_before_us
        aged = 0
        while old is not None and aged < len(found) - 1 and found[aged].max_received < old:
            aged += 1
        chosen[stream] = min(aged, free[stream])
        held += sum(segment.bytes for segment in found[chosen[stream] : aged])
    surplus -= sum(s.bytes for name, n in chosen.items() for s in streams[name][:n])
    while surplus > 0:
        ready = [
            (streams[name][n].max_received, name) for name, n in chosen.items() if n < free[name]
        ]
        if not ready:
            held += surplus
            break
        _, name = min(ready)
        surplus -= streams[name][chosen[name]].bytes
        chosen[name] += 1
    return Verdict(tuple(Trim(tuple(streams[name][:n])) for name, n in chosen.items() if n), held)


def _free(found: list[Segment], consumed: Consumption | None) -> int:
    """How many of a stream's oldest segments nobody needs."""
    if consumed is None or consumed.watermark > found[-1].hi:
        # the platform knows nothing of the stream, or speaks of another log
        return 0
    needed = min(consumed.needed_from, consumed.watermark)
    return sum(segment.hi <= needed for segment in found[:-1])
