"""The contract between buffer and platform: segment files and the manifest, nothing else.

The buffer writes both, the platform reads both. A *stream* is a line's log; offsets are dense
from 0; intervals of offsets are half-open.
"""

import hashlib
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

_TIME: Final = pa.timestamp("us", tz="UTC")

SEGMENT_SCHEMA: Final = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),
        pa.field("received_ts", _TIME, nullable=False),
        pa.field("source_ts", _TIME),
        pa.field("server_ts", _TIME),
        pa.field("quality", pa.uint32(), nullable=False),
        pa.field("retain", pa.bool_(), nullable=False),
        pa.field("dup", pa.bool_(), nullable=False),
    ]
)

MANIFEST_DDL: Final = """
CREATE TABLE IF NOT EXISTS segments (
    stream       TEXT    NOT NULL,
    lo           INTEGER NOT NULL,
    hi           INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    min_received INTEGER NOT NULL,
    max_received INTEGER NOT NULL,
    path         TEXT    NOT NULL,
    content_hash TEXT    NOT NULL,
    chain_hash   TEXT    NOT NULL,
    sealed_at    INTEGER NOT NULL,
    compacted_at INTEGER,
    PRIMARY KEY (stream, lo)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS segments_hi ON segments (stream, hi);
CREATE INDEX IF NOT EXISTS segments_to_compact ON segments (stream, lo)
    WHERE compacted_at IS NULL;
CREATE TABLE IF NOT EXISTS anchors (
    stream     TEXT    NOT NULL PRIMARY KEY,
    lo         INTEGER NOT NULL,
    chain_hash TEXT    NOT NULL,
    trimmed_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (
    stream     TEXT    NOT NULL,
    lo         INTEGER NOT NULL,
    hi         INTEGER NOT NULL,
    path       TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    chain_hash TEXT    NOT NULL,
    lost_at    INTEGER NOT NULL,
    PRIMARY KEY (stream, lo)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unlisted (
    path  TEXT    NOT NULL PRIMARY KEY,
    since INTEGER NOT NULL
) WITHOUT ROWID;
"""
"""Times are Unix microseconds, `path` is relative to the capture folder, hashes are hex.

`segments`: what readers may take. `content_hash` is that of the file's bytes, `chain_hash` that
of every record of the stream up to `hi` (see `chain`), so that compaction keeps it;
`compacted_at` is null for what was sealed and not compacted yet.

`anchors`: records of a stream below `lo` were deleted on purpose; `chain_hash` is that up to
there. `lost`: records [lo, hi) whose file was damaged or is missing; `path` is where the file
was set aside, empty where there is none. `unlisted`: files that no segment names any more, which
stay for readers that still do.
"""

MANIFEST_VERSION: Final = 2
"""Kept in SQLite's `user_version`. Version 1 had `segments` alone, without `compacted_at`."""

DAMAGED_FOLDER: Final = "damaged.files"
"""Below the capture folder: files that were set aside. No stream's folder has a dot."""

_HASH_BYTES: Final = 1 << 20


def content_hash(body: bytes | memoryview) -> str:
    """The hash of bytes, as the manifest has it for those of a file (hex)."""
    return hashlib.blake2b(body, digest_size=32).hexdigest()


def file_hash(path: Path) -> str:
    """`content_hash` of a file.

    Raises:
        OSError: the file can not be read.
    """
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        while part := file.read(_HASH_BYTES):
            digest.update(part)
    return digest.hexdigest()


CHAIN_START: Final = b"\0" * 32

GAP_TOPIC: Final = "$gap/"
"""A record under this topic and its source's name is no message but says that some are missing.

Its payload is JSON: `begin_ms` and `end_ms` (Unix ms, half-open) and the `reason`. A second
record of the same gap also has `filled`, how many values the source's history had, and
`complete`, whether all nodes have one. No line's topics begin with `$`.
"""


class Record(NamedTuple):
    """One captured message; times are Unix microseconds.

    Attributes:
        source: name of the source in the plant file.
        topic: MQTT topic, or the mapped path of an OPC UA node.
        payload: the bytes as they came (OPC UA: canonical JSON).
        received_ts: when the buffer had it.
        source_ts: time at the source, where the protocol carries one.
        server_ts: time at the server, likewise.
        quality: OPC UA StatusCode, 0 over MQTT.
        retain: MQTT retain flag; OPC UA: read from the server's history, not live.
        dup: MQTT DUP flag.
    """

    source: str
    topic: str
    payload: bytes
    received_ts: int
    source_ts: int | None = None
    server_ts: int | None = None
    quality: int = 0
    retain: bool = False
    dup: bool = False


_HEAD = struct.Struct("<qIIIqqqI??")
_NO_TIME = -(2**63)


def chain(previous: bytes, records: Iterable[tuple[int, Record]]) -> bytes:
    """The chain hash after these (offset, record) pairs, record by record (32 bytes)."""
    digest = previous
    for offset, record in records:
        source = record.source.encode()
        topic = record.topic.encode("utf-8", "surrogatepass")
        head = _HEAD.pack(
            offset,
            len(source),
            len(topic),
            len(record.payload),
            record.received_ts,
            _NO_TIME if record.source_ts is None else record.source_ts,
            _NO_TIME if record.server_ts is None else record.server_ts,
            record.quality,
            record.retain,
            record.dup,
        )
        digest = hashlib.blake2b(
            b"".join((digest, head, source, topic, record.payload)), digest_size=32
        ).digest()
    return digest
