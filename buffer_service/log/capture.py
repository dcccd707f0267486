"""The capture log of one home: commits, seals, and where each stream stands.

Everything that changes the database happens in one thread, on one connection. A seal writes its
files beside it, from a read-only connection, and they are listed within the next commit.
"""

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Final, Self

from buffer_service.log import hot, manifest, recovery, seal, tail
from buffer_service.log.batch import Batch
from buffer_service.log.lock import WriterLock
from buffer_service.log.manifest import Position, Segment
from buffer_service.log.seal import Steps, no_step
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home

SEGMENT_BYTES: Final = 64_000_000
"""Payload bytes after which a seal starts a further segment."""
_BUSY_TIMEOUT_MS: Final = 1_000
_WAL_LIMIT_BYTES: Final = 64_000_000


class CaptureLog:
    """The one writer of a home's capture log.

    Args:
        home: whose capture folder it is.
        tail_length: deliveries per session to keep for telling redeliveries: at least as many as
            a broker may have unacknowledged.
        segment_rows: records after which a seal starts a further segment.
        steps: told each step that a crash may follow.

    Raises:
        StorageError: another process writes here, or what is found does not fit together.
    """

    def __init__(
        self,
        home: Home,
        *,
        tail_length: int = 8_000,
        segment_rows: int = 100_000,
        steps: Steps = no_step,
    ) -> None:
        self._home = home
        self._tail_length = tail_length
        self._segment_rows = segment_rows
        self._steps = steps
        home.capture.mkdir(parents=True, exist_ok=True)
        self._lock = WriterLock(home.capture / "manifest.lock")
        try:
            self._db = _connect(home)
            self._sealed = manifest.positions(self._db)
            ends = {stream: position.hi for stream, position in self._sealed.items()}
            self.next_offsets: dict[str, int] = ends | hot.ends(self._db)
            self.hot_rows = hot.count(self._db)
            self.missing_files = recovery.tidy(
                home.capture, manifest.paths(self._db), self.next_offsets
            )
        except sqlite3.Error as error:
            self._lock.release()
            raise StorageError(f"{home.manifest}: can not be opened: {error}") from error
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def new_batch(self) -> Batch:
        """An empty batch that tells redeliveries by what is committed."""
        return Batch(lambda session: tail.load(self._db, session))

    def commit(self, batch: Batch, segments: Sequence[Segment] = ()) -> None:
        """Make a batch durable and list sealed segments: one transaction, all or nothing.

        Raises:
            StorageError: nothing was changed; the same batch may be committed again.
        """
        stretches = [
            hot.Stretch(stream, self.next_offsets.get(stream, 0), records)
            for stream, records in batch.records.items()
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
                    tail.append(db, session, deliveries, keep=self._tail_length)
            for segment in segments:
                manifest.insert(db, segment)
                hot.discard(db, segment.stream, segment.hi)
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
        except (OSError, sqlite3.Error) as error:
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
        uri = f"{self._home.manifest.resolve().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_MS / 1_000)


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
        db.executescript(hot.DDL + tail.DDL)
    except BaseException:
        db.close()
        raise
    return db
