"""The capture log of one home: commits, seals, and where each stream stands.

Everything that changes the database happens in one thread, on one connection. A seal writes its
files beside it, from a read-only connection, and they are listed within the next commit.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Self

import msgspec

from buffer_service.log import hot, manifest, rebuild, recovery, seal, tail
from buffer_service.log.batch import Batch
from buffer_service.log.lock import WriterLock
from buffer_service.log.manifest import Change, Loss, Position, Segment
from buffer_service.log.segment_file import SEGMENT_SUFFIX, Steps, no_step
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import now_us
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home

logger = logging.getLogger(__name__)

SEGMENT_BYTES: Final = 64_000_000
"""Payload bytes after which a seal starts a further segment."""
_BUSY_TIMEOUT_MS: Final = 1_000
_WAL_LIMIT_BYTES: Final = 64_000_000


class CaptureLog:
    """The one writer of a home's capture log.

    Args:
        home: whose capture folder it is.
        segment_rows: records after which a seal starts a further segment.
        names: lines that are known, should the manifest have to be made anew.
        steps: told each step that a crash may follow.
        clock: Unix microseconds.

    Raises:
        StorageError: another process writes here, or what is found does not fit together.
    """

    def __init__(
        self,
        home: Home,
        *,
        segment_rows: int = 100_000,
        names: Sequence[str] = (),
        steps: Steps = no_step,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self._home = home
        self._segment_rows = segment_rows
        self._steps = steps
        self._clock = clock
        home.capture.mkdir(parents=True, exist_ok=True)
        self._lock = WriterLock(home.capture / "manifest.lock")
        try:
            self._db, self.rebuilt = _open(home, names)
            self._sealed = manifest.positions(self._db)
            lost = self._mend_hot()
            ends = {stream: position.hi for stream, position in self._sealed.items()}
            self.next_offsets: dict[str, int] = ends | hot.ends(self._db)
            self.hot_rows = hot.count(self._db)
            found = recovery.tidy(
                home.capture,
                list(manifest.segments(self._db)),
                set(manifest.unlisted(self._db)),
                self.next_offsets,
            )
            self.missing_files = found.missing
            self.damaged = [f"{loss.segment.path}: {loss.reason}" for loss in found.losses]
            self.damaged += lost
            if found.losses:
                self.commit(self.new_batch(), changes=found.losses)
        except sqlite3.Error as error:
            self._lock.release()
            raise StorageError(f"{home.manifest}: can not be opened: {error}") from error
        except BaseException:
            self._lock.release()
            raise

    def _mend_hot(self) -> list[str]:
        """Take out hot rows that can not be read, and write a gap; returns what is lost."""
        damaged = hot.unreadable(self._db)
        if not damaged:
            return []
        try:
            for row in damaged:
                recovery.set_hot_aside(self._home.capture, row)
        except OSError as error:
            raise StorageError(
                f"{self._home.capture}: damaged records can not be set aside: {error}"
            ) from error
        with self._transaction():
            for row in damaged:
                since = self._db.execute(
                    "SELECT max(max_received) FROM segments WHERE stream = ?", (row.stream,)
                ).fetchone()[0]
                now = self._clock()
                reason = f"{row.hi - row.lo} records from offset {row.lo} were damaged"
                gap = recovery.gap_between(now if since is None else since, now, reason)
                hot.take_out(self._db, row)
                sealed = self._sealed.get(row.stream, manifest.Position()).hi
                end = hot.ends(self._db).get(row.stream, sealed)
                hot.append(self._db, hot.Stretch(row.stream, end, [gap]))
        return [f"hot records [{row.lo}, {row.hi}) of '{row.stream}'" for row in damaged]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def new_batch(self) -> Batch:
        """An empty batch that tells redeliveries by what is committed."""
        return Batch(lambda session: tail.load(self._db, session))

    def commit(
        self, batch: Batch, segments: Sequence[Segment] = (), changes: Sequence[Change] = ()
    ) -> None:
        """Make a batch durable, list sealed segments and changes: one transaction.

        Raises:
            StorageError: nothing was changed; the same batch may be committed again.
        """
        stretches = [
            hot.Stretch(stream, self.next_offsets.get(stream, 0), records)
            for stream, records in _with_gaps(batch.records, changes).items()
            if records
        ]
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            for stretch in stretches:
                hot.append(db, stretch)
            for session in batch.started:
                tail.clear(db, session)
            for session, deliveries in batch.deliveries.items():
                if deliveries:
                    tail.append(db, session, deliveries)
            self._list(segments, changes)
            self._steps("commit.written")
            db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise StorageError(
                f"{self._home.manifest}: can not commit: {error}; nothing is acknowledged, "
                "free space or mend the disk"
            ) from error
        self._steps("commit.durable")
        for stretch in stretches:
            self.next_offsets[stretch.stream] = stretch.hi
            self.hot_rows += len(stretch.records)
        for segment in segments:
            self._sealed[segment.stream] = Position(segment.hi, bytes.fromhex(segment.chain_hash))
            self.hot_rows -= segment.hi - segment.lo

    def expect(self, segments: Sequence[Segment]) -> None:
        """Note files that are about to come, so that a crash leaves none that nobody knows.

        Raises:
            StorageError: nothing was changed.
        """
        with self._transaction():
            manifest.note_unlisted(self._db, [one.path for one in segments], self._clock())

    def adopt(self, segments: Sequence[Segment], chain_before: str) -> None:
        """List the segments of a stream that was captured elsewhere: one transaction.

        Raises:
            StorageError: nothing was changed.
        """
        first, last = segments[0], segments[-1]
        with self._transaction():
            if first.lo:
                row = (first.stream, first.lo, chain_before, self._clock())
                self._db.execute("INSERT INTO anchors VALUES (?, ?, ?, ?)", row)
            self._list(segments, (manifest.Removal(tuple(one.path for one in segments)),))
        self._sealed[last.stream] = Position(last.hi, bytes.fromhex(last.chain_hash))
        self.next_offsets[last.stream] = last.hi

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise StorageError(f"{self._home.manifest}: can not be changed: {error}") from error

    def _list(self, segments: Sequence[Segment], changes: Sequence[Change]) -> None:
        for segment in segments:
            manifest.insert(self._db, segment)
            hot.discard(self._db, segment.stream, segment.hi)
        for change in changes:
            if not manifest.apply(self._db, change, self._clock()):
                logger.warning("the log has changed meanwhile, this is left: %s", change)

    def seal(self) -> list[Segment]:
        """Write all hot records to segment files; they count once they are committed.

        May run in another thread while commits go on, but never twice at a time, and its result
        must be committed before the next one.

        Raises:
            StorageError: no file could be written; where some were, they are returned instead.
        """
        segments: list[Segment] = []
        positions = dict(self._sealed)
        try:
            with contextlib.closing(self._read_only()) as db:
                for stretch in hot.stretches(
                    db, max_rows=self._segment_rows, max_bytes=SEGMENT_BYTES
                ):
                    position = positions.get(stretch.stream, Position())
                    segment = seal.write_segment(self._home.capture, stretch, position, self._steps)
                    chain = bytes.fromhex(segment.chain_hash)
                    positions[stretch.stream] = Position(segment.hi, chain)
                    segments.append(segment)
        except (OSError, sqlite3.Error, msgspec.MsgspecError) as error:
            if not segments:
                raise StorageError(
                    f"{self._home.capture}: can not seal: {error}; records stay in "
                    f"{self._home.manifest.name}, free space or mend the disk"
                ) from error
        return segments

    def close(self) -> None:
        """Close the database and let the next writer in."""
        self._db.close()
        self._lock.release()

    def _read_only(self) -> sqlite3.Connection:
        return read_only(self._home)


def _with_gaps(
    records: Mapping[str, list[Record]], changes: Sequence[Change]
) -> Mapping[str, list[Record]]:
    """Records, and a gap in the log for each segment that was lost."""
    lost = [change for change in changes if isinstance(change, Loss)]
    if not lost:
        return records
    found = {stream: list(taken) for stream, taken in records.items()}
    for change in lost:
        found.setdefault(change.segment.stream, []).append(recovery.gap_record(change))
    return found


def read_only(home: Home) -> sqlite3.Connection:
    """A connection that looks at the manifest beside the one that writes it."""
    uri = f"{home.manifest.resolve().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_MS / 1_000)


def _open(home: Home, names: Sequence[str]) -> tuple[sqlite3.Connection, str]:
    """The writing connection, and what was said of a manifest that had to be made anew."""
    if home.manifest.exists() and home.manifest.stat().st_size:
        why = _damage(home)
    else:
        why = "it is gone or empty, but there are segments" if _has_segments(home) else ""
    if not why:
        return _connect(home), ""
    logger.error("%s is damaged: %s. It is made anew from the segments", home.manifest, why)
    told = str(rebuild.rebuild(home, names))
    logger.error("%s was made anew: %s", home.manifest, told)
    return _connect(home), told


def _damage(home: Home) -> str:
    """What is wrong with the manifest's file; empty: nothing."""
    try:
        with contextlib.closing(sqlite3.connect(home.manifest, timeout=1)) as db:
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
            return "" if found == "ok" else str(found)
    except sqlite3.OperationalError:
        raise  # locked, or the disk refuses: the content is not to blame
    except sqlite3.DatabaseError as error:
        return str(error)


def _has_segments(home: Home) -> bool:
    return next(home.capture.glob(f"*/**/*{SEGMENT_SUFFIX}"), None) is not None


def _connect(home: Home) -> sqlite3.Connection:
    """The writing connection; it may be made in one thread and used in another, never in both."""
    db = sqlite3.connect(
        home.manifest,
        timeout=_BUSY_TIMEOUT_MS / 1_000,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
        manifest.prepare(db, home.manifest)
        db.executescript(hot.DDL)
        tail.prepare(db)
    except BaseException:
        db.close()
        raise
    return db
