"""What a computation has read of the log, in a few words for its metadata."""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from iiot_platform.engine.log_reader import LogReader

_SHOWN: Final = 5


def inputs(log: LogReader, line: str, ranges: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The offsets that were read, and the segments that hold them.

    `segments_hash` names the content of all segments, in their order; compaction changes it.
    """
    if not ranges:
        return {}
    hashes: list[str] = []
    digest = hashlib.blake2b(digest_size=8)
    for lo, hi in ranges:
        for segment in log.segments(line, lo, hi):
            hashes.append(segment.content_hash)
            digest.update(segment.content_hash.encode())
    shown = ", ".join(f"[{lo}, {hi})" for lo, hi in ranges[:_SHOWN])
    more = len(ranges) - _SHOWN
    return {
        "offset_lo": ranges[0][0],
        "offset_hi": ranges[-1][1],
        "offsets": f"{shown} and {more} more" if more > 0 else shown,
        "segments": len(hashes),
        "segments_hash": digest.hexdigest(),
    }
