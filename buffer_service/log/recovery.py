"""What a crash or a bad disk may leave in the capture folder, and how a start deals with it."""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from buffer_service.log.hot import Unreadable
from buffer_service.log.manifest import Loss, Segment
from buffer_service.log.segment_file import (
    SEGMENT_SUFFIX,
    TEMPORARY_SUFFIX,
    offsets_of,
    sync_folder,
)
from iiot_platform.core.capture_log import DAMAGED_FOLDER, GAP_TOPIC, Record
from iiot_platform.core.clock import now_us
from iiot_platform.core.errors import StorageError
from iiot_platform.core.names import path_segment

logger = logging.getLogger(__name__)

_SOURCE: Final = "capture-log"
_US_PER_MS: Final = 1_000


@dataclass
class Findings:
    """What was found at a start.

    Attributes:
        missing: listed files that are not there.
        losses: segments whose file is damaged; their files are set aside.
    """

    missing: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)


def tidy(
    capture: Path, listed: Sequence[Segment], kept: set[str], ends: Mapping[str, int]
) -> Findings:
    """Remove files that a crash left unlisted, set damaged ones aside, name missing ones.

    An unlisted segment is removed only where its records are elsewhere: offsets below the end
    of its stream stand in hot rows or in listed segments.

    Args:
        capture: the capture folder.
        listed: the segments of the manifest.
        kept: unlisted files that readers may still hold.
        ends: next offset of each stream.

    Raises:
        StorageError: a segment holds records that the manifest knows nothing of.
    """
    known = {path_segment(stream): end for stream, end in ends.items()}
    missing = {segment.path: segment for segment in listed}
    findings = Findings()
    leftovers = []
    for relative, size in _files(capture):
        segment = missing.pop(relative, None)
        if segment is not None:
            if size != segment.bytes:
                reason = f"it has {size} bytes, sealed were {segment.bytes}"
                findings.losses.append(set_aside(capture, segment, reason))
            continue
        if relative in kept:
            continue
        path = capture / relative
        span = offsets_of(path.name)
        folder = relative.partition(os.sep)[0]
        if span is not None and span[1] > known.get(folder, 0):
            raise StorageError(
                f"{path}: holds offsets {span[0]} to {span[1]}, but the manifest ends at "
                f"{known.get(folder, 0)}: it is older than the files or belongs to another home; "
                "restore the manifest that goes with them, make one from the files with "
                "'iiot log rebuild', or move the file away"
            )
        leftovers.append(path)
    for path in leftovers:
        logger.warning("removing %s: left unlisted by a crash, its records are in the log", path)
        path.unlink()
    for relative in sorted(missing):
        logger.error(
            "%s is listed in the manifest but missing: its records can not be read; restore the "
            "file from a backup, or go on without it after 'iiot log rebuild'. Capture goes on",
            capture / relative,
        )
    findings.missing = sorted(missing)
    return findings


def set_aside(capture: Path, segment: Segment, reason: str) -> Loss:
    """Move a damaged file out of the way; the manifest has yet to be told.

    Raises:
        OSError: the disk refuses.
    """
    place = move_away(capture, segment.path)
    logger.error(
        "%s is damaged: %s. Its offsets [%d, %d) of '%s' are lost unless a backup has them; the"
        " file is set aside as %s. Capture goes on",
        capture / segment.path,
        reason,
        segment.lo,
        segment.hi,
        segment.stream,
        place,
    )
    return Loss(segment, place, reason)


def set_hot_aside(capture: Path, row: Unreadable) -> None:
    """Keep what stands in a hot row that can not be read; the database has yet to be told.

    Raises:
        OSError: the disk refuses.
    """
    name = f"hot-{row.lo:016d}-{row.hi:016d}"
    target = capture / DAMAGED_FOLDER / path_segment(row.stream) / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(bytes(row.content))
    logger.error(
        "%s: the %d records of '%s' from [%d, %d), not sealed yet, are damaged and lost; what stood"
        " there is set aside as %s. Capture goes on",
        capture,
        row.hi - row.lo,
        row.stream,
        row.lo,
        row.hi,
        target.relative_to(capture),
    )


def gap_record(loss: Loss) -> Record:
    """What the log says of its own loss, as it does of an outage of a source."""
    segment = loss.segment
    reason = f"offsets [{segment.lo}, {segment.hi}) were damaged"
    return gap_between(segment.min_received, segment.max_received, reason)


def gap_between(min_received: int, max_received: int, reason: str) -> Record:
    """The same for what was received between two times (Unix us)."""
    gap = {
        "begin_ms": min_received // _US_PER_MS,
        "end_ms": max_received // _US_PER_MS + 1,
        "reason": reason,
    }
    return Record(_SOURCE, f"{GAP_TOPIC}{_SOURCE}", json.dumps(gap).encode(), now_us())


def move_away(capture: Path, relative: str) -> str:
    """Move a file below the folder of damaged ones; returns its place there."""
    source = capture / relative
    target = capture / DAMAGED_FOLDER / relative
    number = 0
    while target.exists():
        number += 1
        target = target.with_name(f"{source.name}.{number}")
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    sync_folder(target.parent)
    sync_folder(source.parent)
    return str(target.relative_to(capture))


def _files(capture: Path) -> Iterator[tuple[str, int]]:
    """Segment and temporary files below the streams' folders, with their sizes."""
    for folder, folders, names in os.walk(capture):
        if Path(folder) == capture:
            folders[:] = [name for name in folders if name != DAMAGED_FOLDER]
            continue
        for name in names:
            if name.endswith((SEGMENT_SUFFIX, TEMPORARY_SUFFIX)):
                path = os.path.join(folder, name)  # noqa: PTH118 - a million files
                yield os.path.relpath(path, capture), os.stat(path).st_size  # noqa: PTH116 - as said
