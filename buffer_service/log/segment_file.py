"""A segment's file: its name, what it says of itself, and how it becomes durable."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from iiot_platform.core.capture_log import SEGMENT_SCHEMA
from iiot_platform.core.names import path_segment

TEMPORARY_SUFFIX: Final = ".tmp"
SEGMENT_SUFFIX: Final = ".parquet"
DICTIONARY_COLUMNS: Final = ["source", "topic"]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STREAM, _BEFORE, _AFTER = b"iiot.stream", b"iiot.chain_before", b"iiot.chain"

Steps = Callable[[str], None]
"""Told the name of each step that a crash may follow; tests cut the process there."""


def no_step(_name: str) -> None:
    """Nothing happens between the steps of a running buffer."""


class Label(NamedTuple):
    """What a file says of itself, so that a lost manifest can be made anew.

    Attributes:
        stream: name of the stream.
        before: chain hash up to its first record.
        after: chain hash behind its last one.
    """

    stream: str
    before: bytes
    after: bytes

    @property
    def schema(self) -> pa.Schema:
        """The schema of a segment with this label."""
        return SEGMENT_SCHEMA.with_metadata(
            {_STREAM: self.stream.encode(), _BEFORE: self.before, _AFTER: self.after}
        )

    @classmethod
    def of(cls, schema: pa.Schema) -> "Label | None":
        """The label of a file with this schema; None where it was written without."""
        found = schema.metadata or {}
        if not {_STREAM, _BEFORE, _AFTER} <= found.keys():
            return None
        return cls(found[_STREAM].decode(), found[_BEFORE], found[_AFTER])


def relative_path(stream: str, lo: int, hi: int, received_ts: int) -> str:
    """Where a segment lies below the capture folder; its hour is that of its first record."""
    first = _EPOCH + timedelta(microseconds=received_ts)
    return (
        f"{path_segment(stream)}/ingest_date={first:%Y-%m-%d}/ingest_hour={first:%H}/"
        f"{lo:016d}-{hi:016d}{SEGMENT_SUFFIX}"
    )


def offsets_of(file_name: str) -> tuple[int, int] | None:
    """The [lo, hi) that a segment's file name holds; None for any other name."""
    lo, dash, hi = file_name.removesuffix(SEGMENT_SUFFIX).partition("-")
    if not file_name.endswith(SEGMENT_SUFFIX) or not (dash and lo.isdecimal() and hi.isdecimal()):
        return None
    return int(lo), int(hi)


def read_table(path: Path) -> pa.Table:
    """The records of a file."""
    with pq.ParquetFile(path, memory_map=False) as file:
        return file.read(columns=SEGMENT_SCHEMA.names, use_threads=False).cast(SEGMENT_SCHEMA)


def publish(
    capture: Path,
    relative: str,
    write: Callable[[IO[bytes]], None],
    *,
    steps: Steps = no_step,
    stage: str,
    check: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write a file under a temporary name and give it its own; durable when this returns.

    Args:
        capture: the capture folder.
        relative: the file's path below it.
        write: writes the content.
        steps: told each step, named `<stage>.written` and so on.
        stage: what is being done.
        check: looks at the file before it gets its name.

    Raises:
        OSError: the file can not be written; nothing is left of it.
    """
    target = capture / relative
    _make_folders(capture, target.parent)
    temporary = target.with_name(target.name + TEMPORARY_SUFFIX)
    try:
        with temporary.open("wb") as file:
            write(file)
            steps(f"{stage}.written")
            file.flush()
            os.fsync(file.fileno())
        steps(f"{stage}.synced")
        check(temporary)
        temporary.replace(target)
    except Exception:
        temporary.unlink(missing_ok=True)
        raise
    steps(f"{stage}.renamed")
    sync_folder(target.parent)
    steps(f"{stage}.folder_synced")


def _make_folders(capture: Path, folder: Path) -> None:
    """Create the folders of an hour, each durable in its parent."""
    missing = []
    while folder != capture and not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent)


def sync_folder(folder: Path) -> None:
    """Make what was named in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
