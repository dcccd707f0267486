"""Writes a capture log as the buffer does, without the buffer: for tests of its readers."""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Sequence
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
) -> tuple[int, int]:
    """Appends records to a stream in segments of `rows`; returns the offsets [lo, hi)."""
    home.capture.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(home.manifest)) as manifest, manifest:
        manifest.execute("PRAGMA journal_mode=WAL")
        manifest.executescript(MANIFEST_DDL)
        manifest.execute(f"PRAGMA user_version={MANIFEST_VERSION}")
        first, digest = manifest.execute(
            "SELECT hi, chain_hash FROM segments WHERE stream = ? ORDER BY hi DESC LIMIT 1",
            (stream,),
        ).fetchone() or (0, CHAIN_START.hex())
        lo = first
        for start in range(0, len(records), rows):
            part = list(enumerate(records[start : start + rows], start=lo))
            digest = chain(bytes.fromhex(digest), part).hex()
            path = _write(home.capture, stream, part)
            body = (home.capture / path).read_bytes()
            received = [record.received_ts for _, record in part]
            manifest.execute(
                "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, NULL)",
                (
                    stream,
                    lo,
                    lo + len(part),
                    len(body),
                    min(received),
                    max(received),
                    path,
                    hashlib.blake2b(body, digest_size=32).hexdigest(),
                    digest,
                ),
            )
            lo += len(part)
    return first, lo


def write_unreadable(
    home: Home, stream: str, records: Sequence[Record], *, aside: Home
) -> Callable[[], None]:
    """Begins a stream with segments whose files are elsewhere; returns what brings them."""
    write_segments(aside, stream, records)
    write_segments(home, stream, [])  # it may be the first stream of this home
    with closing(sqlite3.connect(home.manifest)) as manifest, manifest:
        manifest.execute("ATTACH ? AS aside", (str(aside.manifest),))
        manifest.execute("INSERT INTO segments SELECT * FROM aside.segments")

    def bring() -> None:
        coming = shutil.copytree(aside.capture / path_segment(stream), aside.root / "coming")
        shutil.move(coming, home.capture / path_segment(stream))  # all at once

    return bring


def _write(folder: Path, stream: str, part: list[tuple[int, Record]]) -> str:
    columns = {"offset": [offset for offset, _ in part]} | {
        name: [getattr(record, name) for _, record in part] for name in Record._fields
    }
    path = Path(path_segment(stream), f"{part[0][0]:012d}-{part[-1][0] + 1:012d}.parquet")
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=SEGMENT_SCHEMA), folder / path)
    return str(path)
