"""Is the capture log what was captured? Every file, every offset and the chain of every record."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from iiot_platform.core.capture_log import CHAIN_START, SEGMENT_SCHEMA, Record, chain
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home

_READ_ROWS: Final = 20_000
_HASH_BYTES: Final = 1 << 20
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
    """

    line: str
    segments: int
    records: int
    bytes: int
    head: int
    chain_hash: str
    damage: Damage | None


class SealedLog:
    """The manifest of a capture log, to look at and to check."""

    def __init__(self, home: Home) -> None:
        self._folder = home.capture
        self._manifest = home.manifest

    def lines(self) -> list[str]:
        """The lines that have a sealed segment, in alphabetical order."""
        rows = self._query("SELECT DISTINCT stream FROM segments ORDER BY stream")
        return [str(row[0]) for row in rows]

    def segments(self, line: str) -> list[SealedSegment]:
        """The segments of a line, in order of offsets."""
        names = ", ".join(SealedSegment._fields)
        query = f"SELECT {names} FROM segments WHERE stream = ? ORDER BY lo"
        return [SealedSegment(*row) for row in self._query(query, line)]

    def verify(self, line: str, on_records: Callable[[int], None] = lambda _: None) -> LineVerdict:
        """Checks a line from its first record up to the first thing that is wrong.

        Args:
            line: name of the line.
            on_records: told of every further number of records that was checked.
        """
        segments = self.segments(line)
        digest, reached, sound, size = CHAIN_START, 0, 0, 0
        damage: Damage | None = None
        for segment in segments:
            damage = _misplaced(segment, reached)
            if damage is None:
                digest, damage = self._check(segment, digest, on_records)
            if damage is not None:
                break
            reached, sound, size = segment.hi, sound + 1, size + segment.bytes
        return LineVerdict(
            line=line,
            segments=sound,
            records=reached,
            bytes=size,
            head=max((segment.hi for segment in segments), default=0),
            chain_hash=digest.hex() if damage is None else "",
            damage=damage,
        )

    def _check(
        self, segment: SealedSegment, digest: bytes, on_records: Callable[[int], None]
    ) -> tuple[bytes, Damage | None]:
        """The chain hash behind a segment, and what is wrong with it."""
        path = self._folder / segment.path
        try:
            _check_content(path, segment)
            return _chained(path, segment, digest, on_records), None
        except _DamagedError as error:
            damage = Damage(error.kind, segment.lo, segment.hi, segment.path, str(error))
            return digest, damage

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
    digest = hashlib.blake2b(digest_size=32)
    try:
        with path.open("rb") as file:
            while part := file.read(_HASH_BYTES):
                digest.update(part)
    except FileNotFoundError as error:
        raise _DamagedError("missing_file", "the file is not there") from error
    except OSError as error:
        raise _DamagedError("unreadable", f"it can not be read: {error.strerror}") from error
    if digest.hexdigest() != segment.content_hash:
        raise _DamagedError(
            "content_hash",
            f"the file's hash is {_short(digest.hexdigest())}, sealed was"
            f" {_short(segment.content_hash)}",
        )


def _chained(
    path: Path, segment: SealedSegment, digest: bytes, on_records: Callable[[int], None]
) -> bytes:
    """The chain hash behind a file's records, which must stand at their offsets."""
    expected = segment.lo
    try:
        for part in _records(path):
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


def _records(path: Path) -> Iterator[list[tuple[int, Record]]]:
    """The records of a segment file, some at a time."""
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
