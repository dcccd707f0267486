"""The manifest of sealed segments: what readers may take, and where each stream stands."""

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from iiot_platform.core.capture_log import CHAIN_START, MANIFEST_DDL, MANIFEST_VERSION
from iiot_platform.core.errors import StorageError

logger = logging.getLogger(__name__)


class Segment(NamedTuple):
    """A row of the manifest; the fields are those of the contract, `bytes` is the file's size."""

    stream: str
    lo: int
    hi: int
    bytes: int
    min_received: int
    max_received: int
    path: str
    content_hash: str
    chain_hash: str
    sealed_at: int
    compacted_at: int | None = None

    @property
    def rows(self) -> int:
        """How many records it holds."""
        return self.hi - self.lo


class Position(NamedTuple):
    """How far a stream is sealed: the next offset and the chain hash up to it."""

    hi: int = 0
    chain: bytes = CHAIN_START


class Replacement(NamedTuple):
    """Segments whose records stand in a new file from now on."""

    old: tuple[Segment, ...]
    new: Segment


class Trim(NamedTuple):
    """The oldest segments of a stream, to be deleted; readers may still hold their files."""

    segments: tuple[Segment, ...]


class Loss(NamedTuple):
    """A segment whose file is damaged or missing; `path` is where the file is now, or empty."""

    segment: Segment
    path: str
    reason: str


class Removal(NamedTuple):
    """Files that no segment names, and that are deleted now."""

    paths: tuple[str, ...]


Change = Replacement | Trim | Loss | Removal
"""What upkeep changes besides what is captured; one is listed whole or not at all."""

_NAMES: Final = ", ".join(Segment._fields)
_MARKS: Final = ", ".join("?" * len(Segment._fields))
_INSERT: Final = f"INSERT INTO segments ({_NAMES}) VALUES ({_MARKS})"


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the manifest in a new file, or bring an older one to our version, in place.

    Raises:
        StorageError: a newer buffer wrote this file.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > MANIFEST_VERSION:
        raise StorageError(
            f"{path}: the manifest has version {version}, this buffer writes {MANIFEST_VERSION}; "
            "run the release that wrote it, or give this buffer another home"
        )
    if version == MANIFEST_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in range(version, MANIFEST_VERSION):  # a new file has nothing to upgrade
            for statement in _UPGRADES.get(step, ()) if version else ():
                connection.execute(statement)
        for statement in filter(None, map(str.strip, MANIFEST_DDL.split(";"))):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {MANIFEST_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    if version:
        logger.info("%s: upgraded from version %d to %d", path, version, MANIFEST_VERSION)


_UPGRADES: Final[Mapping[int, Sequence[str]]] = {
    1: ("ALTER TABLE segments ADD COLUMN compacted_at INTEGER",),
}
"""What leads from a version to the next, before tables that are new are made."""


def insert(connection: sqlite3.Connection, segment: Segment) -> None:
    """List a segment; from the commit on, readers see it."""
    connection.execute(_INSERT, segment)


def apply(connection: sqlite3.Connection, change: Change, now_us: int) -> bool:
    """Make a change of what is listed; False, and nothing done, where it no longer fits."""
    match change:
        case Replacement(old, new):
            if not _stand(connection, old):
                return False
            _take_out(connection, old, now_us, keep=new.path)
            insert(connection, new)
        case Trim(segments):
            if not _stand(connection, segments):
                return False
            _take_out(connection, segments, now_us)
            last = segments[-1]
            connection.execute(
                "INSERT INTO anchors VALUES (?, ?, ?, ?) ON CONFLICT (stream) DO UPDATE SET"
                " lo = excluded.lo, chain_hash = excluded.chain_hash,"
                " trimmed_at = excluded.trimmed_at",
                (last.stream, last.hi, last.chain_hash, now_us),
            )
            connection.execute(
                "DELETE FROM lost WHERE stream = ? AND hi <= ?", (last.stream, last.hi)
            )
        case Loss(segment, path, reason):
            if not _stand(connection, (segment,)):
                return False
            _delete(connection, segment)
            row = (segment.stream, segment.lo, segment.hi, path, reason, segment.chain_hash)
            connection.execute("INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, now_us))
        case Removal(paths):
            connection.executemany(
                "DELETE FROM unlisted WHERE path = ?", [(path,) for path in paths]
            )
    return True


def _stand(connection: sqlite3.Connection, segments: Sequence[Segment]) -> bool:
    return all(
        connection.execute(
            "SELECT 1 FROM segments WHERE stream = ? AND lo = ? AND hi = ? AND path = ?",
            (segment.stream, segment.lo, segment.hi, segment.path),
        ).fetchone()
        for segment in segments
    )


def _take_out(
    connection: sqlite3.Connection, segments: Sequence[Segment], now_us: int, keep: str = ""
) -> None:
    for segment in segments:
        _delete(connection, segment)
    note_unlisted(connection, [one.path for one in segments if one.path != keep], now_us)


def note_unlisted(connection: sqlite3.Connection, paths: Sequence[str], now_us: int) -> None:
    """Note files that no segment names, from now on."""
    connection.executemany(
        "INSERT OR REPLACE INTO unlisted VALUES (?, ?)", [(path, now_us) for path in paths]
    )


def _delete(connection: sqlite3.Connection, segment: Segment) -> None:
    connection.execute(
        "DELETE FROM segments WHERE stream = ? AND lo = ?", (segment.stream, segment.lo)
    )


def positions(connection: sqlite3.Connection) -> dict[str, Position]:
    """How far each stream is sealed."""
    # With max(), SQLite takes the bare column from the row that holds the maximum.
    rows = connection.execute(
        "SELECT stream, max(hi), chain_hash FROM (SELECT stream, hi, chain_hash FROM segments"
        " UNION ALL SELECT stream, hi, chain_hash FROM lost"
        " UNION ALL SELECT stream, lo, chain_hash FROM anchors) GROUP BY stream"
    )
    return {stream: Position(hi, bytes.fromhex(chain)) for stream, hi, chain in rows}


def segments(
    connection: sqlite3.Connection, where: str = "", values: Sequence[object] = ()
) -> Iterator[Segment]:
    """The segments that meet a condition, by stream and offset."""
    condition = f" WHERE {where}" if where else ""
    query = f"SELECT {_NAMES} FROM segments{condition} ORDER BY stream, lo"
    return (Segment(*row) for row in connection.execute(query, values))


def unlisted(connection: sqlite3.Connection) -> dict[str, int]:
    """Files that no segment names, and since when (Unix µs)."""
    return dict(connection.execute("SELECT path, since FROM unlisted"))
