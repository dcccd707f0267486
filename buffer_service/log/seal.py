"""Sealing: records become an immutable, durable Parquet file."""

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from buffer_service.log.columns import table_of
from buffer_service.log.hot import Stretch
from buffer_service.log.manifest import Position, Segment
from iiot_platform.core.capture_log import Record, chain
from iiot_platform.core.clock import now_us
from iiot_platform.core.names import path_segment

TEMPORARY_SUFFIX: Final = ".tmp"
SEGMENT_SUFFIX: Final = ".parquet"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Steps = Callable[[str], None]
"""Told the name of each step that a crash may follow; tests cut the process there."""


def no_step(_name: str) -> None:
    """Nothing happens between the steps of a running buffer."""


def relative_path(stretch: Stretch) -> str:
    """Where a segment lies below the capture folder; its hour is that of its first record."""
    first = _EPOCH + timedelta(microseconds=stretch.records[0].received_ts)
    return (
        f"{path_segment(stretch.stream)}/ingest_date={first:%Y-%m-%d}/ingest_hour={first:%H}/"
        f"{stretch.lo:016d}-{stretch.hi:016d}{SEGMENT_SUFFIX}"
    )


def offsets_of(file_name: str) -> tuple[int, int] | None:
    """The [lo, hi) that a segment's file name holds; None for any other name."""
    lo, dash, hi = file_name.removesuffix(SEGMENT_SUFFIX).partition("-")
    if not file_name.endswith(SEGMENT_SUFFIX) or not (dash and lo.isdecimal() and hi.isdecimal()):
        return None
    return int(lo), int(hi)


def write_segment(
    capture: Path, stretch: Stretch, previous: Position, steps: Steps = no_step
) -> Segment:
    """Write one stretch as a segment file; when this returns, the file is durable.

    Raises:
        OSError: the file can not be written.
        ValueError: the stretch does not start where the stream ends.
    """
    if stretch.lo != previous.hi:
        raise ValueError(f"{stretch.stream}: sealed up to {previous.hi}, hot from {stretch.lo}")
    records = stretch.records
    body = _parquet(stretch)
    relative = relative_path(stretch)
    target = capture / relative
    _make_folders(capture, target.parent)
    temporary = target.with_name(target.name + TEMPORARY_SUFFIX)
    try:
        with temporary.open("wb") as file:
            file.write(body)
            steps("seal.written")
            file.flush()
            os.fsync(file.fileno())
        steps("seal.synced")
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    steps("seal.renamed")
    _sync_folder(target.parent)
    steps("seal.folder_synced")
    received = [record.received_ts for record in records]
    return Segment(
        stream=stretch.stream,
        lo=stretch.lo,
        hi=stretch.hi,
        bytes=len(body),
        min_received=min(received),
        max_received=max(received),
        path=relative,
        content_hash=hashlib.blake2b(body, digest_size=32).hexdigest(),
        chain_hash=chain(previous.chain, enumerate(records, stretch.lo)).hex(),
        sealed_at=now_us(),
    )


def warm() -> None:
    """Pay for pyarrow's lazy start before the first message waits for it."""
    _parquet(Stretch("warm", 0, [Record("warm", "warm", b"", 0)]))


def _parquet(stretch: Stretch) -> memoryview:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table_of(stretch),
        sink,
        compression="zstd",
        use_dictionary=["source", "topic"],
    )
    return memoryview(sink.getvalue())


def _make_folders(capture: Path, folder: Path) -> None:
    """Create the folders of an hour, each durable in its parent."""
    missing = []
    while folder != capture and not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _sync_folder(new.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
