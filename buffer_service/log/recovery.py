"""What a crash may leave in the capture folder, and how a start deals with it."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from buffer_service.log.seal import SEGMENT_SUFFIX, TEMPORARY_SUFFIX, offsets_of
from iiot_platform.core.errors import StorageError
from iiot_platform.core.names import path_segment

logger = logging.getLogger(__name__)


def tidy(capture: Path, listed: set[str], ends: Mapping[str, int]) -> list[str]:
    """Remove files that a crash left unlisted; returns listed files that are missing.

    An unlisted segment is removed only where its records are elsewhere: offsets below the end
    of its stream stand in hot rows or in listed segments.

    Args:
        capture: the capture folder.
        listed: files of the manifest, relative to `capture`.
        ends: next offset of each stream.

    Raises:
        StorageError: a segment holds records that the manifest knows nothing of.
    """
    known = {path_segment(stream): end for stream, end in ends.items()}
    missing = set(listed)
    leftovers = []
    for relative in _files(capture):
        if relative in listed:
            missing.discard(relative)
            continue
        path = capture / relative
        span = offsets_of(path.name)
        folder = relative.partition(os.sep)[0]
        if span is not None and span[1] > known.get(folder, 0):
            raise StorageError(
                f"{path}: holds offsets {span[0]} to {span[1]}, but the manifest ends at "
                f"{known.get(folder, 0)}: it is older than the files or belongs to another home; "
                "restore the manifest that goes with them, or move the file away"
            )
        leftovers.append(path)
    for path in leftovers:
        logger.warning("removing %s: left unlisted by a crash, its records are in the log", path)
        path.unlink()
    for relative in sorted(missing):
        logger.error(
            "%s is listed in the manifest but missing: its records can not be read; restore the "
            "file from a backup. Capture goes on",
            capture / relative,
        )
    return sorted(missing)


def _files(capture: Path) -> Iterator[str]:
    """Segment and temporary files below the streams' folders, relative to `capture`."""
    for folder, _, names in os.walk(capture):
        if Path(folder) == capture:
            continue
        for name in names:
            if name.endswith((SEGMENT_SUFFIX, TEMPORARY_SUFFIX)):
                yield os.path.relpath(os.path.join(folder, name), capture)  # noqa: PTH118 - a million files
