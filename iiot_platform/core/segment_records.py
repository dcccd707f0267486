"""Records read back from a segment's file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from iiot_platform.core.capture_log import SEGMENT_SCHEMA, Record

_READ_ROWS: Final = 20_000


def records_of(path: Path) -> Iterator[list[tuple[int, Record]]]:
    """The (offset, record) pairs of a file, some at a time.

    Raises:
        OSError, pyarrow.ArrowException, KeyError: the file is no segment.
    """
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_READ_ROWS, columns=SEGMENT_SCHEMA.names):
            table = pa.Table.from_batches([batch]).cast(SEGMENT_SCHEMA)
            columns = [
                (
                    column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
                ).to_pylist()
                for column in (table.column(name) for name in ("offset", *Record._fields))
            ]
            yield [(row[0], Record(*row[1:])) for row in zip(*columns, strict=True)]
