"""Hot rows: records that are committed but not yet in a segment.

A row holds the records of one stream and one commit, packed: one insert and one delete stand
for some thousand messages.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from iiot_platform.core.capture_log import Record

DDL: Final = """
CREATE TABLE IF NOT EXISTS hot (
    stream  TEXT    NOT NULL,
    lo      INTEGER NOT NULL,
    hi      INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    records BLOB    NOT NULL,
    PRIMARY KEY (stream, lo)
);
"""

MAX_CHUNK_BYTES: Final = 16_000_000
"""Payload bytes in one row, far below the largest value that SQLite stores (1 GB)."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Record]).decode


class Stretch(NamedTuple):
    """Consecutive records of a stream: offsets [lo, lo + len(records))."""

    stream: str
    lo: int
    records: list[Record]

    @property
    def hi(self) -> int:
        """The offset after the last record."""
        return self.lo + len(self.records)


def append(connection: sqlite3.Connection, stretch: Stretch) -> None:
    """Insert the records of one stream."""
    lo = stretch.lo
    for chunk, size in _chunks(stretch.records):
        hi = lo + len(chunk)
        connection.execute(
            "INSERT INTO hot (stream, lo, hi, bytes, records) VALUES (?, ?, ?, ?, ?)",
            (stretch.stream, lo, hi, size, _encode(chunk)),
        )
        lo = hi


def stretches(
    connection: sqlite3.Connection, *, max_rows: int, max_bytes: int
) -> Iterator[Stretch]:
    """All hot records in order, cut so that each stretch stays near the bounds."""
    spans = connection.execute("SELECT stream, lo, hi, bytes FROM hot ORDER BY stream, lo")
    for stream, lo, hi in _spans(spans, max_rows, max_bytes):
        packed = connection.execute(
            "SELECT records FROM hot WHERE stream = ? AND lo >= ? AND lo < ? ORDER BY lo",
            (stream, lo, hi),
        )
        yield Stretch(stream, lo, [record for (blob,) in packed for record in _decode(blob)])


def discard(connection: sqlite3.Connection, stream: str, hi: int) -> None:
    """Delete what a segment up to `hi` holds."""
    connection.execute("DELETE FROM hot WHERE stream = ? AND lo < ?", (stream, hi))


class Unreadable(NamedTuple):
    """A row that says nothing: offsets [lo, hi) of a stream, and what stands there instead."""

    stream: str
    lo: int
    hi: int
    content: bytes


def unreadable(connection: sqlite3.Connection) -> list[Unreadable]:
    """Rows that can not be decoded or do not hold what they say, the last of a stream first."""
    rows = connection.execute("SELECT stream, lo, hi, records FROM hot ORDER BY stream, lo DESC")
    return [Unreadable(*row) for row in rows if not _is_whole(*row[1:])]


def _is_whole(lo: int, hi: int, content: bytes) -> bool:
    try:
        return len(_decode(content)) == hi - lo
    except (msgspec.MsgspecError, TypeError, UnicodeDecodeError):
        return False


def take_out(connection: sqlite3.Connection, row: Unreadable) -> None:
    """Delete a row; what comes after it moves up, for no reader knows hot offsets yet."""
    connection.execute("DELETE FROM hot WHERE stream = ? AND lo = ?", (row.stream, row.lo))
    later = connection.execute(
        "SELECT lo FROM hot WHERE stream = ? AND lo > ? ORDER BY lo", (row.stream, row.lo)
    )
    count = row.hi - row.lo
    for (lo,) in later.fetchall():
        connection.execute(
            "UPDATE hot SET lo = lo - ?, hi = hi - ? WHERE stream = ? AND lo = ?",
            (count, count, row.stream, lo),
        )


def ends(connection: sqlite3.Connection) -> dict[str, int]:
    """The offset after the last hot record of each stream that has any."""
    return dict(connection.execute("SELECT stream, max(hi) FROM hot GROUP BY stream"))


def count(connection: sqlite3.Connection) -> int:
    """Hot records of all streams."""
    (rows,) = connection.execute("SELECT coalesce(sum(hi - lo), 0) FROM hot").fetchone()
    return int(rows)


def _chunks(records: list[Record]) -> Iterator[tuple[list[Record], int]]:
    size = sum(len(record.payload) for record in records)
    if size <= MAX_CHUNK_BYTES:
        yield records, size
        return
    chunk: list[Record] = []
    size = 0
    for record in records:
        if chunk and size + len(record.payload) > MAX_CHUNK_BYTES:
            yield chunk, size
            chunk, size = [], 0
        chunk.append(record)
        size += len(record.payload)
    yield chunk, size


def _spans(
    rows: Iterable[tuple[str, int, int, int]], max_rows: int, max_bytes: int
) -> list[tuple[str, int, int]]:
    """Join neighbouring rows of a stream into spans within the bounds."""
    spans: list[tuple[str, int, int]] = []
    size = 0
    for stream, lo, hi, row_bytes in rows:
        if spans and spans[-1][0] == stream:
            start = spans[-1][1]
            if hi - start <= max_rows and size + row_bytes <= max_bytes:
                spans[-1] = (stream, start, hi)
                size += row_bytes
                continue
        spans.append((stream, lo, hi))
        size = row_bytes
    return spans
