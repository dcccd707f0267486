"""Reads the capture log: files from the manifest, never from a glob."""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from iiot_platform.core.capture_log import MANIFEST_VERSION, SEGMENT_SCHEMA
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home

_BUSY_TIMEOUT_S = 5.0
_ALL = 2**63
# from stream to stream through the index; DISTINCT would walk over every segment there is
_STREAMS = """
WITH RECURSIVE streams(name) AS (
    SELECT MIN(stream) FROM segments
    UNION ALL
    SELECT (SELECT MIN(stream) FROM segments WHERE stream > name) FROM streams
    WHERE name IS NOT NULL
)
SELECT name FROM streams WHERE name IS NOT NULL
"""


Range = tuple[int, int]
"""Offsets [lo, hi)."""


class Segment(NamedTuple):
    """One sealed file: offsets [lo, hi) of a stream; times in Unix µs."""

    lo: int
    hi: int
    path: Path
    content_hash: str
    max_received: int


class LogReader:
    """A read-only view of the capture log below one home."""

    def __init__(self, home: Home) -> None:
        self._folder = home.capture
        self._manifest = home.manifest

    def streams(self) -> list[str]:
        """The streams that have a sealed segment."""
        return [row[0] for row in self._query(_STREAMS)]

    def head(self, stream: str) -> int:
        """The offset behind the last sealed record; 0 where nothing is sealed."""
        rows = self._query("SELECT MAX(hi) FROM segments WHERE stream = ?", stream)
        return int(rows[0][0] or 0) if rows else 0

    def start(self, stream: str) -> int:
        """The first offset that retention has left; 0 where nothing was deleted."""
        rows = self._query("SELECT lo FROM anchors WHERE stream = ?", stream)
        return int(rows[0][0]) if rows else 0

    def gone(self, stream: str) -> tuple[Range, ...]:
        """The offset ranges whose records are not in the log any more, in order.

        They were deleted by retention, or their file was damaged and set aside.
        """
        start = self.start(stream)
        lost = self._query("SELECT lo, hi FROM lost WHERE stream = ? ORDER BY lo", stream)
        return ((0, start),) * bool(start) + tuple((int(lo), int(hi)) for lo, hi in lost)

    def present(self, stream: str, ranges: Iterable[Range]) -> list[Range]:
        """Ranges without what is known to be gone."""
        return without(ranges, self.gone(stream))

    def segments(self, stream: str, lo: int, hi: int) -> list[Segment]:
        """The segments that hold any offset of [lo, hi), in order."""
        rows = self._query(
            # from the segment that `lo` is in: the index has to be entered there and not at 0
            "SELECT lo, hi, path, content_hash, max_received FROM segments"
            " WHERE stream = ? AND hi > ? AND lo < ? AND lo >= COALESCE("
            "(SELECT MAX(lo) FROM segments WHERE stream = ? AND lo <= ?), 0) ORDER BY lo",
            stream,
            lo,
            hi,
            stream,
            lo,
        )
        return [
            Segment(int(a), int(b), self._folder / path, digest, int(at))
            for a, b, path, digest, at in rows
        ]

    def batch_end(self, stream: str, lo: int, row_cap: int) -> int:
        """Where a batch that starts at `lo` ends: a segment boundary at most `row_cap` on.

        One segment is always taken, however long, so that a batch can never be empty while
        there is something to take.
        """
        rows = self._query(
            "SELECT COALESCE(MAX(hi), (SELECT MIN(hi) FROM segments WHERE stream = ? AND hi > ?))"
            " FROM segments WHERE stream = ? AND hi > ? AND hi <= ?",
            stream,
            lo,
            stream,
            lo,
            lo + row_cap,
        )
        return int(rows[0][0] or lo) if rows else lo

    def read(
        self,
        stream: str,
        ranges: Iterable[tuple[int, int]],
        columns: Sequence[str] = SEGMENT_SCHEMA.names,
    ) -> pa.Table:
        """The records of half-open offset ranges, in offset order; whole or some columns of them.

        Args:
            stream: name of the stream.
            ranges: half-open.
            columns: those to read, `offset` among them.

        Raises:
            StorageError: a record of the ranges is not there, or a file can not be read.
        """
        wanted = pa.schema([SEGMENT_SCHEMA.field(name) for name in columns])
        files: dict[Path, _File] = {}
        parts = [self._read_range(stream, lo, hi, wanted, files) for lo, hi in ranges if hi > lo]
        return pa.concat_tables(parts) if parts else wanted.empty_table()

    def _read_range(
        self, stream: str, lo: int, hi: int, wanted: pa.Schema, files: "dict[Path, _File]"
    ) -> pa.Table:
        """One range; `files` holds those of the range before, since one file may serve many."""
        segments = self.segments(stream, lo, hi)
        if not segments:
            raise StorageError(
                f"stream '{stream}' has no segment for offsets [{lo}, {hi}) in {self._manifest}"
            )
        try:
            found = {s.path: files.get(s.path) or _File(s.path, wanted) for s in segments}
            tables = [rows for file in found.values() for rows in file.read(lo, hi)]
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, FileNotFoundError) and self.segments(stream, lo, hi) != segments:
                # compacted meanwhile, and a full disk has cut the grace short
                return self._read_range(stream, lo, hi, wanted, files)
            raise StorageError(f"segments of stream '{stream}' can not be read: {error}") from error
        files.clear()
        files.update(found)
        table = pa.concat_tables(tables) if tables else SEGMENT_SCHEMA.empty_table()
        offsets = table.column("offset").to_numpy()
        inside = (offsets >= lo) & (offsets < hi)
        if not inside.all():
            table = table.filter(pa.array(inside))
        if len(table) != hi - lo:
            raise StorageError(
                f"stream '{stream}' has {len(table)} of the {hi - lo} records of offsets"
                f" [{lo}, {hi}); check the log"
            )
        return table

    def _query(self, sql: str, *parameters: str | int) -> list[tuple[Any, ...]]:
        if not self._manifest.exists():
            return []
        try:
            with closing(
                sqlite3.connect(
                    f"{self._manifest.absolute().as_uri()}?mode=ro",
                    uri=True,
                    timeout=_BUSY_TIMEOUT_S,
                )
            ) as connection:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version > MANIFEST_VERSION:
                    raise StorageError(
                        f"{self._manifest} has version {version}, this platform reads up to"
                        f" {MANIFEST_VERSION}; upgrade the platform"
                    )
                return connection.execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            if "no such table" in str(error):
                return []
            raise StorageError(f"{self._manifest} can not be read: {error}") from error


def without(ranges: Iterable[Range], gone: Iterable[Range]) -> list[Range]:
    """Ranges without the parts that others cover; the others are in order and apart."""
    left: list[Range] = []
    others = tuple(gone)
    for lo, hi in ranges:
        start = lo
        for begin, end in others:
            if end <= start or begin >= hi:
                continue
            if begin > start:
                left.append((start, begin))
            start = max(start, end)
        if start < hi:
            left.append((start, hi))
    return left


class _File:
    """The row groups of one file, as far as they were read; a sealed segment has a single one.

    A reader of one file costs a tenth of a query or a data set.
    """

    def __init__(self, path: Path, wanted: pa.Schema) -> None:
        self._path = path
        self._wanted = wanted
        self._spans: list[Range] | None = None
        self._rows: dict[int, pa.Table] = {}

    def read(self, lo: int, hi: int) -> list[pa.Table]:
        """The row groups that may hold offsets of [lo, hi); they stay until others are read.

        Raises:
            OSError, pyarrow.ArrowException: the file can not be read.
        """
        if self._spans is not None and all(n in self._rows for n in self._places(lo, hi)):
            return [self._rows[number] for number in self._places(lo, hi)]
        with pq.ParquetFile(self._path, memory_map=False) as file:
            self._spans = [_span(file.metadata.row_group(n)) for n in range(file.num_row_groups)]
            chosen = self._places(lo, hi)
            self._rows = {number: self._group(file, number) for number in chosen}
        return [self._rows[number] for number in chosen]

    def _group(self, file: pq.ParquetFile, number: int) -> pa.Table:
        known = self._rows.get(number)
        if known is not None:
            return known
        rows = file.read_row_group(number, columns=self._wanted.names, use_threads=False)
        return rows.select(self._wanted.names).cast(self._wanted)

    def _places(self, lo: int, hi: int) -> list[int]:
        spans = self._spans or []
        return [number for number, (start, stop) in enumerate(spans) if start < hi and stop > lo]


def _span(group: pq.RowGroupMetaData) -> Range:
    """The offsets of a row group by its statistics; all that there are where it has none."""
    statistics = group.column(0).statistics
    if statistics is None or not statistics.has_min_max:
        return 0, _ALL
    return statistics.min, statistics.max + 1
