"""Records as the columns of a segment.

The arrays are made from buffers: `pyarrow.array` on Python lists imports pandas, which takes a
starting buffer seconds and tens of megabytes that it has no other use for.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from buffer_service.log.hot import Stretch
from iiot_platform.core.capture_log import SEGMENT_SCHEMA


def table_of(stretch: Stretch) -> pa.Table:
    """The records of a stretch, with their offsets, in the schema of a segment."""
    source, topic, payload, received, at_source, at_server, quality, retain, dup = zip(
        *stretch.records, strict=True
    )
    columns = [
        _fixed(np.arange(stretch.lo, stretch.hi, dtype=np.int64)),
        _bytes([text.encode() for text in source]),
        _bytes([text.encode() for text in topic]),
        _bytes(payload),
        _fixed(np.array(received, np.int64)),
        _times(at_source),
        _times(at_server),
        _fixed(np.array(quality, np.uint32)),
        _fixed(_bits(np.array(retain, np.bool_))),
        _fixed(_bits(np.array(dup, np.bool_))),
    ]
    rows = len(stretch.records)
    arrays = [
        pa.Array.from_buffers(field.type, rows, buffers)
        for field, buffers in zip(SEGMENT_SCHEMA, columns, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SEGMENT_SCHEMA)


Buffers = list[pa.Buffer | None]


def _fixed(values: npt.NDArray[np.generic]) -> Buffers:
    return [None, pa.py_buffer(values.data)]


def _bytes(values: Sequence[bytes]) -> Buffers:
    """Values end to end, with the offset at which each starts."""
    starts = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, values), np.int32, len(values)), out=starts[1:])
    return [None, pa.py_buffer(starts.data), pa.py_buffer(b"".join(values))]


def _times(values: Sequence[int | None]) -> Buffers:
    """Microseconds with a bitmap of those that are there."""
    present = np.array([value is not None for value in values], np.bool_)
    micros = np.array([0 if value is None else value for value in values], np.int64)
    return [pa.py_buffer(_bits(present).data), pa.py_buffer(micros.data)]


def _bits(values: npt.NDArray[np.bool_]) -> npt.NDArray[np.generic]:
    return np.packbits(values, bitorder="little")
