"""A manifest made anew from the segments' files, where it is damaged, gone or too old.

What it alone knew is gone with it: hot records that can not be read from it any more, and the
tail of redeliveries. The damaged file is kept.
"""

import contextlib
import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from buffer_service.log import hot, manifest, tail
from buffer_service.log.manifest import Segment
from buffer_service.log.recovery import move_away
from buffer_service.log.segment_file import (
    SEGMENT_SUFFIX,
    Label,
    offsets_of,
    read_table,
    sync_folder,
)
from iiot_platform.core.capture_log import CHAIN_START, DAMAGED_FOLDER, chain, file_hash
from iiot_platform.core.clock import from_ms, now_us
from iiot_platform.core.consumption import read_consumption
from iiot_platform.core.errors import StorageError
from iiot_platform.core.names import path_segment
from iiot_platform.core.paths import Home
from iiot_platform.core.segment_records import records_of

logger = logging.getLogger(__name__)

_NEW: Final = "manifest.sqlite.new"
_BESIDE: Final = ("-wal", "-shm")
_LONG: Final = "%~"
"""In a folder's name: it was cut, and does not say the stream's whole name."""


@dataclass
class Rebuilt:
    """What was made of the files.

    Attributes:
        segments: how many are listed now.
        records: records in them.
        hot: records that were saved from the old manifest and are in no file yet.
        lost: offsets that are in no file, by stream.
        damaged: files that were set aside, with the reason.
        remarks: what else a person should know.
        kept_as: where the old manifest is; empty: there was none.
    """

    segments: int = 0
    records: int = 0
    hot: int = 0
    lost: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    kept_as: str = ""

    def __str__(self) -> str:
        lost = "".join(
            f"; offsets [{lo}, {hi}) of '{stream}' are in no file"
            for stream, spans in self.lost.items()
            for lo, hi in spans
        )
        damaged = "".join(f"; {path} is set aside: {why}" for path, why in self.damaged.items())
        remarks = "".join(f"; {remark}" for remark in self.remarks)
        old = f"; the old manifest is kept as {self.kept_as}" if self.kept_as else ""
        return (
            f"{self.records:,} records in {self.segments:,} segments are listed, {self.hot:,} more"
            f" were saved from the old manifest{lost}{damaged}{remarks}{old}; messages that were"
            " not acknowledged come again, and some that were may stand twice"
        )


def rebuild(
    home: Home, names: Sequence[str] = (), on_file: Callable[[int, int], None] = lambda *_: None
) -> Rebuilt:
    """Make the manifest of a home anew; only while no buffer writes there.

    Args:
        home: whose capture log it is.
        names: lines that are known, for folders that do not say their stream's whole name.
        on_file: told how many of how many files are done.

    Raises:
        StorageError: the disk refuses.
    """
    capture, new = home.capture, home.capture / _NEW
    rebuilt = Rebuilt()
    try:
        new.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as db:
            manifest.prepare(db, new)
            db.executescript(hot.DDL)
            tail.prepare(db)
            db.execute("BEGIN")
            _list(db, home, names, on_file, rebuilt)
            db.execute("COMMIT")
        rebuilt.kept_as = _keep_old(home)
        new.replace(home.manifest)
        sync_folder(capture)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"{home.manifest}: can not be made anew: {error}") from error
    return rebuilt


def _keep_old(home: Home) -> str:
    """Copies the old manifest aside and removes what would be taken for the new one's."""
    if not home.manifest.exists():
        return ""
    stamp = f"{from_ms(now_us() // 1_000):%Y%m%dT%H%M%S}"
    folder = home.capture / DAMAGED_FOLDER / f"manifest-{stamp}"
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *_BESIDE):
        path = home.manifest.with_name(home.manifest.name + suffix)
        if path.exists():
            shutil.copy2(path, folder / path.name)
    for suffix in _BESIDE:
        home.manifest.with_name(home.manifest.name + suffix).unlink(missing_ok=True)
    return str(folder.relative_to(home.capture))


class _Found(NamedTuple):
    stream: str
    lo: int
    hi: int
    path: str
    label: Label | None


def _list(
    db: sqlite3.Connection,
    home: Home,
    names: Sequence[str],
    on_file: Callable[[int, int], None],
    rebuilt: Rebuilt,
) -> None:
    anchors = {row[0]: (int(row[1]), str(row[2])) for row in _saved(home, "anchors", 4)}
    files = sorted(
        _files(home.capture, {path_segment(name): name for name in names}, rebuilt),
        key=lambda found: (found.stream, found.lo, -found.hi),
    )
    consumed, _ = read_consumption(home)
    done = 0
    ends: dict[str, int] = {}
    for stream, found in groupby(files, key=lambda one: one.stream):
        builder = _Stream(db, home.capture, stream, anchors.get(stream), rebuilt)
        for file in found:
            builder.add(file)
            done += 1
            on_file(done, len(files))
        # an offset that was computed already must never name another record
        builder.reach(consumed[stream].watermark if stream in consumed else 0)
        ends[stream] = builder.hi
    for row in sorted(_saved(home, "hot", 5), key=lambda row: (row[0], row[1])):
        if row[1] == ends.get(row[0], 0):
            db.execute("INSERT INTO hot VALUES (?, ?, ?, ?, ?)", row)
            ends[row[0]] = row[2]
            rebuilt.hot += row[2] - row[1]


@dataclass
class _Stream:
    """One stream while its files are listed, in order of offsets."""

    db: sqlite3.Connection
    capture: Path
    stream: str
    anchor: tuple[int, str] | None
    rebuilt: Rebuilt
    hi: int = 0
    chain: bytes = CHAIN_START
    begun: bool = False

    def add(self, file: _Found) -> None:
        """Lists a file, unless its records stand in the one before."""
        if self.begun and file.hi <= self.hi:
            self.db.execute("INSERT INTO unlisted VALUES (?, ?)", (file.path, now_us()))
            return
        if self.begun and file.lo < self.hi:
            self._set_aside(file, f"it begins before {self.hi}, where another ends")
            return
        try:
            segment, before = self._segment(file)
        except (OSError, pa.ArrowException, KeyError, StorageError) as error:
            self._set_aside(file, str(error))
            return
        if not self.begun:
            self._begin(file.lo, before)
        elif file.lo > self.hi:
            self._lose(file.lo, before)
        manifest.insert(self.db, segment)
        self.rebuilt.segments += 1
        self.rebuilt.records += segment.rows
        self.hi, self.chain = segment.hi, bytes.fromhex(segment.chain_hash)

    def reach(self, hi: int) -> None:
        """Makes the stream end no earlier than an offset."""
        if hi > self.hi:
            self._lose(hi, self.chain)
            self.hi = hi

    def _begin(self, lo: int, chain_before: bytes) -> None:
        self.begun = True
        if lo == 0:
            return
        if self.anchor is None or self.anchor[0] != lo:
            self.anchor = (lo, chain_before.hex())
            self.rebuilt.remarks.append(f"'{self.stream}' begins at offset {lo}")
        self.db.execute("INSERT INTO anchors VALUES (?, ?, ?, ?)", (self.stream, *self.anchor, 0))

    def _lose(self, hi: int, chain_before: bytes) -> None:
        self.db.execute(
            "INSERT INTO lost VALUES (?, ?, ?, '', 'in no file', ?, ?)",
            (self.stream, self.hi, hi, chain_before.hex(), now_us()),
        )
        self.rebuilt.lost.setdefault(self.stream, []).append((self.hi, hi))

    def _set_aside(self, file: _Found, reason: str) -> None:
        self.rebuilt.damaged[file.path] = f"{reason}; now {move_away(self.capture, file.path)}"

    def _segment(self, file: _Found) -> tuple[Segment, bytes]:
        """The manifest's row of a file, and the chain hash before it."""
        path = self.capture / file.path
        rows = read_table(path)
        offsets = rows.column("offset").to_numpy()
        if len(rows) != file.hi - file.lo or any(offsets != range(file.lo, file.hi)):
            raise StorageError(f"its records are not [{file.lo}, {file.hi})")
        if file.label is None:
            before = self._before(file.lo)
            after = before
            for part in records_of(path):
                after = chain(after, part)
        else:
            before, after = file.label.before, file.label.after
        received = pc.min_max(rows.column("received_ts").cast(pa.int64()))
        stat = path.stat()
        return Segment(
            stream=self.stream,
            lo=file.lo,
            hi=file.hi,
            bytes=stat.st_size,
            min_received=received["min"].as_py(),
            max_received=received["max"].as_py(),
            path=file.path,
            content_hash=file_hash(path),
            chain_hash=after.hex(),
            sealed_at=stat.st_mtime_ns // 1_000,
        ), before

    def _before(self, lo: int) -> bytes:
        """The chain hash before a file that does not say it."""
        if self.begun and lo == self.hi:
            return self.chain
        if not self.begun and self.anchor is not None and self.anchor[0] == lo:
            return bytes.fromhex(self.anchor[1])
        if lo:
            self.rebuilt.remarks.append(f"the chain of '{self.stream}' begins anew at {lo}")
        return CHAIN_START


def _files(capture: Path, folders: dict[str, str], rebuilt: Rebuilt) -> Iterator[_Found]:
    """Every segment's file with its stream; what can not be read is set aside."""
    for path in capture.glob(f"*/**/*{SEGMENT_SUFFIX}"):
        relative = path.relative_to(capture)
        span = offsets_of(path.name)
        folder = relative.parts[0]
        if folder == DAMAGED_FOLDER or span is None:
            continue
        try:
            with pq.ParquetFile(path) as file:
                label = Label.of(file.schema_arrow)
        except (OSError, pa.ArrowException) as error:
            place = move_away(capture, str(relative))
            rebuilt.damaged[str(relative)] = f"it is no segment: {error}; now {place}"
            continue
        stream = label.stream if label else folders.get(folder, unquote(folder))
        if label is None and folder not in folders and _LONG in folder:
            rebuilt.remarks.append(f"{relative} is of no line that is known")
            continue
        yield _Found(stream, *span, str(relative), label)


def _saved(home: Home, table: str, columns: int) -> list[tuple[Any, ...]]:
    """The rows of a table of the old manifest, as far as they can be read."""
    rows: list[tuple[Any, ...]] = []
    if not home.manifest.exists():
        return rows
    with contextlib.suppress(sqlite3.Error):
        uri = f"{home.manifest.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            rows.extend(row for row in db.execute(f"SELECT * FROM {table}") if len(row) == columns)
    return rows
