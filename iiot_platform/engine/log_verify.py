"""Is the capture log what was captured? Every file, every offset and the chain of every record."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from iiot_platform.core.capture_log import CHAIN_START, chain, file_hash
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home
from iiot_platform.core.segment_records import records_of

_COMPACTING = 2
"""The version of the manifest that knows of compaction and of records that are gone."""
DamageKind = Literal["missing_file", "content_hash", "unreadable", "hole", "overlap", "chain"]


class SealedSegment(NamedTuple):
    """A row of the manifest: offsets [lo, hi) of a stream; times in Unix µs, hashes hex."""

    lo: int
    hi: int
    bytes: int
    min_received: int
    max_received: int
    path: str
    content_hash: str
    chain_hash: str
    compacted_at: int | None = None

    @property
    def rows(self) -> int:
        """How many records it holds."""
        return self.hi - self.lo


class Missing(NamedTuple):
    """Offsets [lo, hi) whose records are known to be gone, and the chain hash behind them."""

    lo: int
    hi: int
    reason: str
    chain_hash: str


class Damage(NamedTuple):
    """The first thing that is wrong with a line's log.

    Attributes:
        kind: what is wrong.
        lo: first offset of the segment, or of the hole.
        hi: offset behind its last.
        path: the segment's file, relative to the capture folder.
        detail: what was expected and what was found.
    """

    kind: DamageKind
    lo: int
    hi: int
    path: str
    detail: str


@dataclass(frozen=True)
class LineVerdict:
    """What was found of one line.

    Attributes:
        line: name of the line.
        segments: segments found sound, from the first on.
        records: records in them.
        bytes: their size.
        head: the offset behind the last record that the manifest lists.
        chain_hash: chain hash behind the last sound record.
        damage: the first thing that is wrong; None: all is sound.
        start: the first offset; those below it were deleted by retention.
        lost: offsets behind it whose file was damaged and set aside, or is in no backup.
    """

    line: str
    segments: int
    records: int
    bytes: int
    head: int
    chain_hash: str
    damage: Damage | None
    start: int = 0
    lost: tuple[tuple[int, int], ...] = ()


class SealedLog:
    """The manifest of a capture log, to look at and to check."""

    def __init__(self, home: Home) -> None:
        self._folder = home.capture
        self._manifest = home.manifest

    def exists(self) -> bool:
        """True where there is a manifest."""
        return self._manifest.exists()

    def lines(self) -> list[str]:
        """The lines that have a sealed segment, in alphabetical order."""
        rows = self._query("SELECT DISTINCT stream FROM segments ORDER BY stream")
        return [str(row[0]) for row in rows]

    def segments(self, line: str) -> list[SealedSegment]:
        """The segments of a line, in order of offsets."""
        names = ", ".join(SealedSegment._fields)
        if self._version() < _COMPACTING:
            names = names.replace("compacted_at", "NULL")
        query = f"SELECT {names} FROM segments WHERE stream = ? ORDER BY lo"
        return [SealedSegment(*row) for row in self._query(query, line)]

    def missing(self, line: str) -> list[Missing]:
        """What is known to be gone of a line, in order: deleted at its start, lost later."""
        if self._version() < _COMPACTING:
            return []
        return [
            Missing(*row)
            for row in self._query(
                "SELECT 0, lo, 'deleted by retention', chain_hash FROM anchors WHERE stream = ?"
                " UNION ALL SELECT lo, hi, reason, chain_hash FROM lost WHERE stream = ?"
                " ORDER BY 1",
                line,
                line,
            )
        ]

    def verify(self, line: str, on_records: Callable[[int], None] = lambda _: None) -> LineVerdict:
        """Checks a line from its first record up to the first thing that is wrong.

        Args:
            line: name of the line.
            on_records: told of every further number of records that was checked.

        Raises:
            StorageError: the manifest can not be read.
        """
        segments, missing = self.segments(line), self.missing(line)
        return verify_files(self._folder, line, segments, missing, on_records)

    def _version(self) -> int:
        return int(self._query("PRAGMA user_version")[0][0])

    def _query(self, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
        if not self._manifest.exists():
            raise StorageError(
                f"'{self._manifest}' is not there: nothing was captured below this home yet, or"
                " it is another folder; give the one that IIOT_HOME names"
            )
        address = f"{self._manifest.absolute().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(address, uri=True)) as connection:
                return connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"{self._manifest} can not be read: {error}") from error


def verify_files(
    folder: Path,
    line: str,
    segments: Sequence[SealedSegment],
    missing: Iterable[Missing] = (),
    on_records: Callable[[int], None] = lambda _: None,
) -> LineVerdict:
    """Checks files of a line, in order of offsets, up to the first thing that is wrong.

    Args:
        folder: what their paths are relative to.
        line: name of the line.
        segments: what should be there.
        missing: what is known not to be.
        on_records: told of every further number of records that was checked.
    """
    digest, reached, sound, size, records, start = CHAIN_START, 0, 0, 0, 0, 0
    damage: Damage | None = None
    gone = list(missing)
    lost: list[tuple[int, int]] = []
    for segment in segments:
        while gone and gone[0].lo == reached and gone[0].hi <= segment.lo:
            hole = gone.pop(0)
            if hole.lo:
                lost.append((hole.lo, hole.hi))
            else:
                start = hole.hi
            digest, reached = bytes.fromhex(hole.chain_hash), hole.hi
        damage = _misplaced(segment, reached)
        if damage is None:
            digest, damage = _checked(folder, segment, digest, on_records)
        if damage is not None:
            break
        reached, sound, size = segment.hi, sound + 1, size + segment.bytes
        records += segment.rows
    return LineVerdict(
        line=line,
        segments=sound,
        records=records,
        bytes=size,
        head=max((segment.hi for segment in segments), default=0),
        chain_hash=digest.hex() if damage is None else "",
        damage=damage,
        start=start,
        lost=(*lost, *((hole.lo, hole.hi) for hole in gone)) if damage is None else tuple(lost),
    )


def _checked(
    folder: Path, segment: SealedSegment, digest: bytes, on_records: Callable[[int], None]
) -> tuple[bytes, Damage | None]:
    """The chain hash behind a segment, and what is wrong with it."""
    path = folder / segment.path
    try:
        _check_content(path, segment)
        return _chained(path, segment, digest, on_records), None
    except _DamagedError as error:
        damage = Damage(error.kind, segment.lo, segment.hi, segment.path, str(error))
        return digest, damage


def _misplaced(segment: SealedSegment, reached: int) -> Damage | None:
    """What is wrong with where a segment begins, the offset behind the one before being known."""
    if segment.lo == reached:
        return None
    if segment.lo > reached:
        detail = f"offsets [{reached}, {segment.lo}) are in no segment"
        return Damage("hole", reached, segment.lo, segment.path, detail)
    detail = f"it begins at {segment.lo}, the segment before it ends at {reached}"
    return Damage("overlap", segment.lo, segment.hi, segment.path, detail)


class _DamagedError(Exception):
    """A segment is not what was sealed."""

    def __init__(self, kind: DamageKind, detail: str) -> None:
        self.kind: DamageKind = kind
        super().__init__(detail)


def _check_content(path: Path, segment: SealedSegment) -> None:
    try:
        found = file_hash(path)
    except FileNotFoundError as error:
        raise _DamagedError("missing_file", "the file is not there") from error
    except OSError as error:
        raise _DamagedError("unreadable", f"it can not be read: {error.strerror}") from error
    if found != segment.content_hash:
        raise _DamagedError(
            "content_hash",
            f"the file's hash is {_short(found)}, sealed was {_short(segment.content_hash)}",
        )


def _chained(
    path: Path, segment: SealedSegment, digest: bytes, on_records: Callable[[int], None]
) -> bytes:
    """The chain hash behind a file's records, which must stand at their offsets."""
    expected = segment.lo
    try:
        for part in records_of(path):
            offsets = [offset for offset, _ in part]
            if offsets != list(range(expected, expected + len(part))):
                raise _DamagedError("hole", _first_misplaced(offsets, expected))
            expected += len(part)
            digest = chain(digest, part)
            on_records(len(part))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _DamagedError("unreadable", f"it is no segment: {error}") from error
    if expected != segment.hi:
        raise _DamagedError("hole", f"it ends before offset {expected}, sealed was {segment.hi}")
    if digest.hex() != segment.chain_hash:
        raise _DamagedError(
            "chain",
            f"the records' chain is {_short(digest.hex())}, sealed was"
            f" {_short(segment.chain_hash)}",
        )
    return digest


def _first_misplaced(offsets: list[int], expected: int) -> str:
    wrong = next(i for i, offset in enumerate(offsets) if offset != expected + i)
    return f"offset {expected + wrong} was expected, {offsets[wrong]} stands there"


def _short(digest: str) -> str:
    return f"{digest[:16]}…" if digest else "none"
