"""Compaction: the many small segments of an hour that is over become one file, or a few.

The records and their chain stay; only files change. Nothing is listed here: the result is a
change of the manifest, which the writer makes within its next commit.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from buffer_service.log import manifest
from buffer_service.log.manifest import Loss, Replacement, Segment
from buffer_service.log.recovery import set_aside
from buffer_service.log.segment_file import (
    DICTIONARY_COLUMNS,
    Label,
    Steps,
    no_step,
    publish,
    read_table,
    relative_path,
)
from iiot_platform.core.capture_log import CHAIN_START, file_hash
from iiot_platform.core.errors import StorageError

ROW_GROUP_ROWS: Final = 20_000
"""Rows that are held at a time, and that a reader of one record has to read."""
FILE_BYTES: Final = 256_000_000
"""Bytes of small files after which a further file is begun."""
_HOUR_US: Final = 3_600_000_000

Pause = Callable[[], None]
"""Called after every portion; lets others go first, or raises to end the work."""


class UnfitError(StorageError):
    """A segment's file is not what was sealed."""

    def __init__(self, segment: Segment, reason: str) -> None:
        self.segment = segment
        self.reason = reason
        super().__init__(f"{segment.path}: {reason}")


def due(
    connection: sqlite3.Connection, *, now_us: int, after_us: int, max_rows: int
) -> tuple[Segment, ...]:
    """Consecutive segments of one stream and hour that are to become one; empty: none are.

    Args:
        connection: reads the manifest.
        now_us: the current time.
        after_us: how long after its end an hour is left alone.
        max_rows: records of one file at most.
    """
    over = (now_us - after_us) // _HOUR_US * _HOUR_US
    found = manifest.segments(connection, "compacted_at IS NULL AND max_received < ?", (over,))
    group: list[Segment] = []
    for segment in found:
        if group and not _joins(group, segment, max_rows):
            break
        group.append(segment)
    return tuple(group)


def _joins(group: Sequence[Segment], segment: Segment, max_rows: int) -> bool:
    first, last = group[0], group[-1]
    return (
        segment.stream == first.stream
        and segment.lo == last.hi
        and segment.min_received // _HOUR_US == first.min_received // _HOUR_US
        and segment.hi - first.lo <= max_rows
        and sum(one.bytes for one in group) + segment.bytes <= FILE_BYTES
    )


def compact(
    capture: Path,
    group: Sequence[Segment],
    *,
    before: bytes | None,
    now_us: int,
    steps: Steps = no_step,
    pause: Pause = lambda: None,
) -> Replacement | Loss:
    """Writes the records of some segments to one file, and reads it back to compare.

    Where a file turns out to be damaged it is set aside, and this is the change.

    Args:
        capture: the capture folder.
        group: consecutive segments of a stream.
        before: chain hash up to the first of them; None where it is not known.
        now_us: the current time.
        steps: told each step.
        pause: called after every portion.

    Raises:
        OSError: the file can not be written; nothing has changed.
    """
    if len(group) == 1:
        (only,) = group
        return Replacement((only,), only._replace(compacted_at=now_us))
    first, last = group[0], group[-1]
    relative = relative_path(first.stream, first.lo, last.hi, first.min_received)
    label = Label(first.stream, before or CHAIN_START, bytes.fromhex(last.chain_hash))
    schema = label.schema if before is not None else label.schema.remove_metadata()

    def write(file: IO[bytes]) -> None:
        with pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=DICTIONARY_COLUMNS,
            write_statistics=["offset", "received_ts"],
        ) as writer:
            for rows in _portions(capture, group, check=True):
                writer.write_table(rows.replace_schema_metadata(schema.metadata), len(rows))
                pause()

    def compare(path: Path) -> None:
        with pq.ParquetFile(path, memory_map=False) as file:
            for number, rows in enumerate(_portions(capture, group, check=False)):
                if not file.read_row_group(number, use_threads=False).equals(rows):
                    raise OSError(f"{path} does not hold what was written to it")
                pause()

    try:
        publish(capture, relative, write, steps=steps, stage="compact", check=compare)
    except UnfitError as error:
        return set_aside(capture, error.segment, error.reason)
    path = capture / relative
    return Replacement(
        tuple(group),
        Segment(
            stream=first.stream,
            lo=first.lo,
            hi=last.hi,
            bytes=path.stat().st_size,
            min_received=min(segment.min_received for segment in group),
            max_received=max(segment.max_received for segment in group),
            path=relative,
            content_hash=file_hash(path),
            chain_hash=last.chain_hash,
            sealed_at=last.sealed_at,
            compacted_at=now_us,
        ),
    )


def _portions(capture: Path, group: Sequence[Segment], *, check: bool) -> Iterator[pa.Table]:
    """The records of some segments, a row group at a time."""
    held: list[pa.Table] = []
    rows = 0
    for segment in group:
        table = _read(capture / segment.path, segment, check=check)
        while rows + len(table) >= ROW_GROUP_ROWS:
            part = table.slice(0, ROW_GROUP_ROWS - rows)
            table = table.slice(len(part))
            yield pa.concat_tables([*held, part]).combine_chunks()
            held, rows = [], 0
        held.append(table)
        rows += len(table)
    if rows:
        yield pa.concat_tables(held).combine_chunks()


def _read(path: Path, segment: Segment, *, check: bool) -> pa.Table:
    """The records of a segment, which are what was sealed.

    Raises:
        OSError: the file can not be read now.
        UnfitError: it is damaged.
    """
    try:
        if check and (found := file_hash(path)) != segment.content_hash:
            raise UnfitError(
                segment, f"its hash is {found[:16]}…, not {segment.content_hash[:16]}…"
            )
        table = read_table(path)
    except (pa.ArrowException, KeyError) as error:
        raise UnfitError(segment, f"it is no segment: {error}") from error
    offsets = table.column("offset").to_numpy()
    if not np.array_equal(offsets, np.arange(segment.lo, segment.hi)):
        raise UnfitError(segment, f"its offsets are not [{segment.lo}, {segment.hi})")
    return table


def chain_before(connection: sqlite3.Connection, stream: str, lo: int) -> bytes | None:
    """The chain hash up to an offset where a segment begins; None where it is not known."""
    if lo == 0:
        return CHAIN_START
    for query in (
        "SELECT chain_hash FROM segments WHERE stream = ? AND hi = ?",
        "SELECT chain_hash FROM lost WHERE stream = ? AND hi = ?",
        "SELECT chain_hash FROM anchors WHERE stream = ? AND lo = ?",
    ):
        row = connection.execute(query, (stream, lo)).fetchone()
        if row is not None:
            return bytes.fromhex(row[0])
    return None
