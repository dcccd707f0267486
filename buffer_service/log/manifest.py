"""The manifest of sealed segments: what readers may take, and where each stream stands."""

import sqlite3
from pathlib import Path
from typing import NamedTuple

from iiot_platform.core.capture_log import CHAIN_START, MANIFEST_DDL, MANIFEST_VERSION
from iiot_platform.core.errors import StorageError


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


class Position(NamedTuple):
    """How far a stream is sealed: the next offset and the chain hash up to it."""

    hi: int = 0
    chain: bytes = CHAIN_START


_MARKS = ", ".join("?" * len(Segment._fields))
_INSERT = f"INSERT INTO segments ({', '.join(Segment._fields)}) VALUES ({_MARKS})"


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the manifest in a new file, or check that an old one is of our version.

    Raises:
        StorageError: another version of the buffer wrote this file.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, MANIFEST_VERSION):
        raise StorageError(
            f"{path}: the manifest has version {version}, this buffer writes {MANIFEST_VERSION}; "
            "run the release that wrote it, or give this buffer another home"
        )
    connection.executescript(MANIFEST_DDL)
    connection.execute(f"PRAGMA user_version = {MANIFEST_VERSION}")


def insert(connection: sqlite3.Connection, segment: Segment) -> None:
    """List a segment; from the commit on, readers see it."""
    connection.execute(_INSERT, segment)


def positions(connection: sqlite3.Connection) -> dict[str, Position]:
    """How far each stream is sealed."""
    # With max(), SQLite takes the bare column from the row that holds the maximum.
    rows = connection.execute("SELECT stream, max(hi), chain_hash FROM segments GROUP BY stream")
    return {stream: Position(hi, bytes.fromhex(chain)) for stream, hi, chain in rows}


def paths(connection: sqlite3.Connection) -> set[str]:
    """The files that the manifest lists, relative to the capture folder."""
    return {path for (path,) in connection.execute("SELECT path FROM segments")}
