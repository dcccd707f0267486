"""Reads a capture log as the platform does, from the manifest, and checks what it promises."""

import hashlib
import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq

from iiot_platform.core.capture_log import (
    CHAIN_START,
    DAMAGED_FOLDER,
    SEGMENT_SCHEMA,
    Record,
    chain,
)
from iiot_platform.core.paths import Home


def sealed_records(home: Home, stream: str) -> list[Record]:
    """All sealed records of a stream, after checking offsets, hashes and chain."""
    with closing(sqlite3.connect(home.manifest)) as db:
        rows = db.execute(
            "SELECT lo, hi, bytes, min_received, max_received, path, content_hash, chain_hash "
            "FROM segments WHERE stream = ? ORDER BY lo",
            (stream,),
        ).fetchall()
    records: list[Record] = []
    digest = CHAIN_START
    for lo, hi, size, min_received, max_received, path, content_hash, chain_hash in rows:
        body = (home.capture / path).read_bytes()
        assert len(body) == size
        assert hashlib.blake2b(body, digest_size=32).hexdigest() == content_hash
        table = pq.read_table(pa.BufferReader(body))
        assert table.schema.equals(SEGMENT_SCHEMA)
        offsets = table.column("offset").to_pylist()
        assert lo == len(records)
        assert offsets == list(range(lo, hi))
        part = [_record(row) for row in table.drop_columns("offset").to_pylist()]
        received = [record.received_ts for record in part]
        assert (min(received), max(received)) == (min_received, max_received)
        digest = chain(digest, zip(offsets, part, strict=True))
        assert digest.hex() == chain_hash
        records += part
    return records


def unlisted_files(home: Home) -> set[str]:
    """Files below the streams' folders that the manifest does not list."""
    with closing(sqlite3.connect(home.manifest)) as db:
        listed = {path for (path,) in db.execute("SELECT path FROM segments")}
    files = home.capture.glob("*/**/*.*")
    found = {str(path.relative_to(home.capture)) for path in files}
    return {path for path in found - listed if not path.startswith(DAMAGED_FOLDER)}


def _record(row: dict[str, object]) -> Record:
    micros = {
        name: None if row[name] is None else pa.scalar(row[name], pa.timestamp("us", "UTC")).value
        for name in ("received_ts", "source_ts", "server_ts")
    }
    return Record(**(row | micros))  # type: ignore[arg-type]  # the schema's types were checked
