"""Segments of another log, taken into this one under the offsets that they have."""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from buffer_service.log import manifest
from buffer_service.log.capture import CaptureLog
from buffer_service.log.manifest import Segment
from buffer_service.log.segment_file import publish, relative_path
from iiot_platform.core.capture_log import file_hash
from iiot_platform.core.clock import now_us
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home


def take_in(
    home: Home,
    segments: Sequence[Segment],
    folder: Path,
    chain_before: str,
    *,
    on_segments: Callable[[int, int], None] = lambda *_: None,
) -> bool:
    """Copies the segments of a stream that this log does not have, and lists them.

    Args:
        home: whose log it is; no buffer may run there.
        segments: consecutive ones of one stream; their paths are relative to `folder`.
        folder: where the files are.
        chain_before: chain hash up to the first of them (hex).
        on_segments: told how many of how many are copied.

    Returns:
        False where exactly these are listed already.

    Raises:
        StorageError: the stream has other records here, a buffer runs, or a file is not what it
            should be; nothing was listed.
    """
    first = segments[0]
    with CaptureLog(home) as log:
        if first.stream in log.next_offsets:
            if _holds(home, segments):
                return False
            raise StorageError(
                f"{home.manifest}: line '{first.stream}' has offsets up to"
                f" {log.next_offsets[first.stream]} here, the import has [{first.lo},"
                f" {segments[-1].hi}): one line can have one log; import into another home"
            )
        placed = [
            one._replace(
                path=relative_path(one.stream, one.lo, one.hi, one.min_received),
                sealed_at=now_us(),
            )
            for one in segments
        ]
        log.expect(placed)
        for number, (segment, given) in enumerate(zip(placed, segments, strict=True), 1):
            _copy(home.capture, segment, folder / given.path)
            on_segments(number, len(segments))
        log.adopt(placed, chain_before)
    return True


def _holds(home: Home, segments: Sequence[Segment]) -> bool:
    with contextlib.closing(sqlite3.connect(home.manifest)) as db:
        found = manifest.segments(db, "stream = ?", (segments[0].stream,))
        here = [(one.lo, one.hi, one.content_hash) for one in found]
    return here == [(one.lo, one.hi, one.content_hash) for one in segments]


def _copy(capture: Path, segment: Segment, source: Path) -> None:
    """Copies a file to a segment's place, if it is what it should be."""

    def write(file: IO[bytes]) -> None:
        with source.open("rb") as opened:
            shutil.copyfileobj(opened, file)

    def check(path: Path) -> None:
        if file_hash(path) != segment.content_hash:
            raise StorageError(f"'{source}' is not what was exported; copy it again")

    try:
        publish(capture, segment.path, write, stage="import", check=check)
    except OSError as error:
        raise StorageError(f"'{source}' can not be taken in: {error}") from error
