"""Sealing: records become an immutable, durable Parquet file."""

from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from buffer_service.log.columns import table_of
from buffer_service.log.hot import Stretch
from buffer_service.log.manifest import Position, Segment
from buffer_service.log.segment_file import (
    DICTIONARY_COLUMNS,
    Label,
    Steps,
    no_step,
    publish,
    relative_path,
)
from iiot_platform.core.capture_log import CHAIN_START, Record, chain, content_hash
from iiot_platform.core.clock import now_us


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
    digest = chain(previous.chain, enumerate(records, stretch.lo))
    body = _parquet(stretch, Label(stretch.stream, previous.chain, digest))
    relative = relative_path(stretch.stream, stretch.lo, stretch.hi, records[0].received_ts)
    publish(capture, relative, lambda file: _write(file, body), steps=steps, stage="seal")
    received = [record.received_ts for record in records]
    return Segment(
        stream=stretch.stream,
        lo=stretch.lo,
        hi=stretch.hi,
        bytes=len(body),
        min_received=min(received),
        max_received=max(received),
        path=relative,
        content_hash=content_hash(body),
        chain_hash=digest.hex(),
        sealed_at=now_us(),
    )


def warm() -> None:
    """Pay for pyarrow's lazy start before the first message waits for it."""
    stretch = Stretch("warm", 0, [Record("warm", "warm", b"", 0)])
    _parquet(stretch, Label("warm", CHAIN_START, CHAIN_START))


def _write(file: IO[bytes], body: memoryview) -> None:
    file.write(body)


def _parquet(stretch: Stretch, label: Label) -> memoryview:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table_of(stretch).replace_schema_metadata(label.schema.metadata),
        sink,
        compression="zstd",
        use_dictionary=DICTIONARY_COLUMNS,
    )
    return memoryview(sink.getvalue())
