"""A small writer of capture logs, for tests that need one without a buffer."""

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from iiot_platform.core.capture_log import (
    CHAIN_START,
    MANIFEST_DDL,
    MANIFEST_VERSION,
    SEGMENT_SCHEMA,
    Record,
    chain,
)
from iiot_platform.core.names import path_segment
from iiot_platform.core.paths import Home


def write_segments(
    home: Home, stream: str, records: Sequence[Record], *, rows: int = 1_000
) -> list[Path]:
    """Appends records to a stream as sealed segments of at most `rows`; returns their files."""
    folder = home.capture / path_segment(stream)
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(home.manifest)) as manifest, manifest:
        manifest.execute("PRAGMA journal_mode=WAL")
        manifest.executescript(MANIFEST_DDL)
        manifest.execute(f"PRAGMA user_version={MANIFEST_VERSION}")
        last = manifest.execute(
            "SELECT hi, chain_hash FROM segments WHERE stream = ? ORDER BY lo DESC", (stream,)
        ).fetchone()
        lo, digest = (last[0], bytes.fromhex(last[1])) if last else (0, CHAIN_START)
        paths = []
        for part in _parts(records, rows):
            digest = chain(digest, enumerate(part, lo))
            path = folder / f"{lo}-{lo + len(part)}.parquet"
            columns = [
                range(lo, lo + len(part)),
                *([getattr(record, name) for record in part] for name in SEGMENT_SCHEMA.names[1:]),
            ]
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(columns, SEGMENT_SCHEMA, strict=True)
            ]
            pq.write_table(pa.table(arrays, schema=SEGMENT_SCHEMA), path)
            received = [record.received_ts for record in part]
            manifest.execute(
                "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(stream, lo, lo + len(part), path.stat().st_size),
                    *(min(received), max(received), str(path.relative_to(home.capture))),
                    *(hashlib.blake2b(path.read_bytes()).hexdigest(), digest.hex()),
                    max(received),
                ),
            )
            lo += len(part)
            paths.append(path)
    return paths


def _parts(records: Sequence[Record], rows: int) -> list[Sequence[Record]]:
    return [records[start : start + rows] for start in range(0, len(records), rows)]


def signal_records(
    line: str, times_ms: Sequence[int], *, device: str = "temperature", late_ms: int = 0
) -> list[Record]:
    """One signal reading per time, received `late_ms` after it."""
    return [
        Record(
            source="mqtt",
            topic=f"{line}/press/{device}",
            payload=(
                f'{{"LineName":"{line}","MachineName":"press","SensorName":"{device}",'
                f'"SensorValue":{20 + ts % 7},"TimeStamp":{ts}}}'
            ).encode(),
            received_ts=(ts + late_ms) * 1_000,
        )
        for ts in times_ms
    ]
