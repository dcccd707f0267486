"""The ledger: what was computed, from what, and where it stands.

Every change is one transaction that first checks what it was computed from (compare and swap): a
commit that lost writes nothing.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core.clock import now_ms
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.commit import (
    Base,
    Commit,
    CurrentFile,
    DirtyMark,
    FileChange,
    HourChange,
    StoredState,
)
from iiot_platform.engine.errors import CommitLostError, LedgerError
from iiot_platform.engine.partition import SeriesState

_BUSY_TIMEOUT_S = 30.0


class Ledger:
    """One ledger; safe for any number of processes.

    Args:
        url: SQLAlchemy URL; SQLite files are made with their folder.
        sinks: True where a database wants to be told of every change.
        clock: Unix milliseconds, for what is merely recorded.
    """

    def __init__(self, url: str, *, sinks: bool = False, clock: Callable[[], int] = now_ms) -> None:
        self._engine = _connect(url)
        self._sinks = sinks
        self._clock = clock
        try:
            db.METADATA.create_all(self._engine)
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError(f"the ledger can not be opened: {error}") from error

    @classmethod
    def at(cls, path: Path, *, sinks: bool = False) -> "Ledger":
        """The SQLite ledger at a path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{path.absolute()}", sinks=sinks)

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """One transaction, alone among the writers.

        Raises:
            LedgerError: the database refuses; nothing was written.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError(f"the ledger can not be used: {error}") from error

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A consistent view that holds nobody up.

        Raises:
            LedgerError: the database refuses.
        """
        try:
            with self._engine.connect().execution_options(iiot_reading=True) as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError(f"the ledger can not be read: {error}") from error

    def watermark(self, line: str) -> int:
        """The offset behind the last one that live batches have taken."""
        with self.reading() as connection:
            return _watermark(connection, line)

    def partition_version(self, line: str, hour: int) -> int:
        """How often the hour was committed; 0: never."""
        with self.reading() as connection:
            return _partition_version(connection, line, hour)

    def assignment(self, line: str, hour: int) -> LineSettings | None:
        """The settings that an hour is computed under; None where it has none yet."""
        query = (
            sa.select(db.SETTINGS.c.body)
            .join_from(
                db.ASSIGNMENTS,
                db.SETTINGS,
                sa.and_(
                    db.SETTINGS.c.line == db.ASSIGNMENTS.c.line,
                    db.SETTINGS.c.version == db.ASSIGNMENTS.c.version,
                ),
            )
            .where(db.ASSIGNMENTS.c.line == line, db.ASSIGNMENTS.c.hour == hour)
            .order_by(db.ASSIGNMENTS.c.id.desc())
            .limit(1)
        )
        with self.reading() as connection:
            body = connection.execute(query).scalar()
        return None if body is None else LineSettings.model_validate_json(body)

    def states(
        self, line: str, keys: Iterable[SeriesKey], *, before: int | None = None
    ) -> dict[SeriesKey, StoredState]:
        """The last state of each series, at all or in hours before one."""
        with self.reading() as connection:
            return _states(connection, line, keys, before)

    def states_of(self, line: str, hour: int) -> dict[SeriesKey, SeriesState]:
        """The states behind one hour: its part of the checkpoint."""
        query = sa.select(db.STATES).where(db.STATES.c.line == line, db.STATES.c.hour == hour)
        with self.reading() as connection:
            return {
                SeriesKey.parse(row.series): SeriesState(row.blob, row.frontier)
                for row in connection.execute(query)
            }

    def next_hour(self, line: str, series: SeriesKey, hour: int) -> int | None:
        """The next hour after `hour` in which a series has a state."""
        query = sa.select(sa.func.min(db.STATES.c.hour)).where(
            db.STATES.c.line == line, db.STATES.c.series == series.text, db.STATES.c.hour > hour
        )
        with self.reading() as connection:
            return connection.execute(query).scalar()

    def files(self, line: str, table: str, hour: int) -> list[CurrentFile]:
        """The files that hold a table's rows of an hour, oldest first."""
        query = (
            sa.select(db.FILES.c.id, db.FILES.c.path, db.FILES.c.rows, db.FILES.c.level)
            .where(
                db.FILES.c.line == line,
                db.FILES.c.table_name == table,
                db.FILES.c.hour == hour,
                db.FILES.c.dropped_version.is_(None),
            )
            .order_by(db.FILES.c.id)
        )
        with self.reading() as connection:
            return [CurrentFile(*row) for row in connection.execute(query)]

    def files_between(self, line: str, table: str, start_hour: int, end_hour: int) -> list[str]:
        """Paths of the files of a table in hours [start, end), in order of time."""
        query = (
            sa.select(db.FILES.c.path)
            .where(
                db.FILES.c.line == line,
                db.FILES.c.table_name == table,
                db.FILES.c.hour >= start_hour,
                db.FILES.c.hour < end_hour,
                db.FILES.c.dropped_version.is_(None),
            )
            .order_by(db.FILES.c.hour, db.FILES.c.id)
        )
        with self.reading() as connection:
            return list(connection.execute(query).scalars())

    def hours(self, line: str) -> list[int]:
        """The hours of a line that were ever committed, oldest first."""
        query = (
            sa.select(db.PARTITIONS.c.hour)
            .where(db.PARTITIONS.c.line == line)
            .order_by(db.PARTITIONS.c.hour)
        )
        with self.reading() as connection:
            return list(connection.execute(query).scalars())

    def ranges(self, line: str, hour: int) -> list[tuple[int, int]]:
        """The offset ranges that hold records of an hour, below the watermark."""
        query = (
            sa.select(db.RANGES.c.lo, db.RANGES.c.hi)
            .where(db.RANGES.c.line == line, db.RANGES.c.hour == hour)
            .order_by(db.RANGES.c.lo)
        )
        with self.reading() as connection:
            return [(lo, hi) for lo, hi in connection.execute(query)]

    def dirty(self, line: str) -> dict[int, list[tuple[int, DirtyMark]]]:
        """The dirty marks by hour, oldest hour first, each with its id."""
        query = sa.select(db.DIRTY).where(db.DIRTY.c.line == line)
        marks: dict[int, list[tuple[int, DirtyMark]]] = {}
        with self.reading() as connection:
            for row in connection.execute(query.order_by(db.DIRTY.c.hour, db.DIRTY.c.id)):
                mark = DirtyMark(row.hour, row.series, row.reason, row.rows)
                marks.setdefault(row.hour, []).append((row.id, mark))
        return marks

    def counts(self, line: str) -> dict[str, int]:
        """The running counts of a line's live batches."""
        query = sa.select(db.COUNTS.c.name, db.COUNTS.c.count).where(db.COUNTS.c.line == line)
        with self.reading() as connection:
            return {str(row[0]): int(row[1]) for row in connection.execute(query)}

    def batches(self, line: str, limit: int) -> list[dict[str, Any]]:
        """The newest batches of a line, newest first."""
        query = (
            sa.select(db.BATCHES)
            .where(db.BATCHES.c.line == line)
            .order_by(db.BATCHES.c.id.desc())
            .limit(limit)
        )
        with self.reading() as connection:
            rows = connection.execute(query).mappings()
            return [{**row, "body": json.loads(row["body"])} for row in rows]

    def commit(self, commit: Commit) -> dict[int, int]:
        """Writes a commit whole or not at all; returns each hour's new version.

        Raises:
            CommitLostError: what the commit was computed from has changed.
            LedgerError: the database refuses.
        """
        with self.transaction() as connection:
            _check(connection, commit)
            batch = self._write_batch(connection, commit)
            for change in commit.hours:
                self._write_hour(connection, commit.line, change, batch)
            for hour in commit.ranges:
                _extend_range(connection, commit.line, hour, commit.lo, commit.hi)
            self._write_dirty(connection, commit)
            for name, count in commit.counts.items():
                _count(connection, commit.line, name, count)
        return {change.hour: change.base_version + 1 for change in commit.hours}

    def _write_batch(self, connection: sa.Connection, commit: Commit) -> int:
        if commit.kind == "live":
            upsert(connection, db.LINES, {"line": commit.line}, {"watermark": commit.hi})
        body = {
            "hours": [
                {
                    "hour": change.hour,
                    "version": change.base_version + 1,
                    "settings": change.settings.version,
                    "rows": dict(change.rows),
                    "anomalies": change.anomalies,
                    "files": [f.added.path for f in change.files if f.added is not None],
                }
                for change in commit.hours
            ],
            "counts": dict(commit.counts),
        }
        result = connection.execute(
            sa.insert(db.BATCHES).values(
                line=commit.line,
                kind=commit.kind,
                lo=commit.lo,
                hi=commit.hi,
                run_id=commit.run_id,
                code_version=commit.code_version,
                committed_ms=self._clock(),
                seconds=commit.seconds,
                body=json.dumps(body, separators=(",", ":")),
            )
        )
        return int(result.inserted_primary_key[0])  # type: ignore[index] # insert has one

    def _write_hour(
        self, connection: sa.Connection, line: str, change: HourChange, batch: int
    ) -> None:
        version = change.base_version + 1
        self._assign(connection, line, change.hour, change.settings)
        upsert(
            connection,
            db.PARTITIONS,
            {"line": line, "hour": change.hour},
            {
                "version": version,
                "settings_version": change.settings.version,
                "settled": change.settled,
                "batch": batch,
                "updated_ms": self._clock(),
            },
        )
        for key, state in change.states.items():
            upsert(
                connection,
                db.STATES,
                {"line": line, "series": key.text, "hour": change.hour},
                {"blob": state.blob, "hash": state.hash, "frontier": state.frontier},
            )
        if change.gone:
            connection.execute(
                sa.delete(db.STATES).where(
                    db.STATES.c.line == line,
                    db.STATES.c.hour == change.hour,
                    db.STATES.c.series.in_([key.text for key in change.gone]),
                )
            )
        for files in change.files:
            self._write_files(connection, line, change.hour, files, version)

    def _write_files(
        self, connection: sa.Connection, line: str, hour: int, change: FileChange, version: int
    ) -> None:
        if change.dropped:
            connection.execute(
                sa.update(db.FILES)
                .where(db.FILES.c.id.in_(change.dropped))
                .values(dropped_version=version, dropped_ms=self._clock())
            )
        file = None
        if change.added is not None:
            result = connection.execute(
                sa.insert(db.FILES).values(
                    line=line,
                    table_name=change.table,
                    hour=hour,
                    path=change.added.path,
                    rows=change.added.rows,
                    bytes=change.added.bytes,
                    min_ts=change.added.min_ts,
                    max_ts=change.added.max_ts,
                    level=change.level,
                    added_version=version,
                )
            )
            file = int(result.inserted_primary_key[0])  # type: ignore[index] # insert has one
        if self._sinks and change.operation is not None:
            connection.execute(
                sa.insert(db.OUTBOX).values(
                    line=line,
                    table_name=change.table,
                    hour=hour,
                    file=file,
                    operation=change.operation,
                    started=False,
                )
            )

    def _assign(
        self, connection: sa.Connection, line: str, hour: int, settings: LineSettings
    ) -> None:
        last = connection.execute(
            sa.select(db.ASSIGNMENTS.c.version)
            .where(db.ASSIGNMENTS.c.line == line, db.ASSIGNMENTS.c.hour == hour)
            .order_by(db.ASSIGNMENTS.c.id.desc())
            .limit(1)
        ).scalar()
        if last == settings.version:
            return
        now = self._clock()
        known = connection.execute(
            sa.select(db.SETTINGS.c.version).where(
                db.SETTINGS.c.line == line, db.SETTINGS.c.version == settings.version
            )
        ).scalar()
        if known is None:
            connection.execute(
                sa.insert(db.SETTINGS).values(
                    line=line,
                    version=settings.version,
                    body=settings.model_dump_json(),
                    first_used_ms=now,
                )
            )
        connection.execute(
            sa.insert(db.ASSIGNMENTS).values(
                line=line, hour=hour, version=settings.version, at_ms=now
            )
        )

    def _write_dirty(self, connection: sa.Connection, commit: Commit) -> None:
        if commit.cleared:
            connection.execute(sa.delete(db.DIRTY).where(db.DIRTY.c.id.in_(commit.cleared)))
        for mark in commit.dirty:
            connection.execute(
                sa.insert(db.DIRTY).values(
                    line=commit.line, since_ms=self._clock(), **mark._asdict()
                )
            )


def _connect(url: str) -> sa.Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        reading = connection.get_execution_options().get("iiot_reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def upsert(
    connection: sa.Connection, table: sa.Table, key: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    """Sets the row of a key; the transaction is alone among the writers of its line."""
    where = sa.and_(*(table.c[name] == value for name, value in key.items()))
    if connection.execute(sa.update(table).where(where).values(**values)).rowcount == 0:
        connection.execute(sa.insert(table).values(**key, **values))


def _watermark(connection: sa.Connection, line: str) -> int:
    query = sa.select(db.LINES.c.watermark).where(db.LINES.c.line == line).with_for_update()
    return connection.execute(query).scalar() or 0


def _partition_version(connection: sa.Connection, line: str, hour: int) -> int:
    query = sa.select(db.PARTITIONS.c.version).where(
        db.PARTITIONS.c.line == line, db.PARTITIONS.c.hour == hour
    )
    return connection.execute(query).scalar() or 0


def _states(
    connection: sa.Connection, line: str, keys: Iterable[SeriesKey], before: int | None
) -> dict[SeriesKey, StoredState]:
    found: dict[SeriesKey, StoredState] = {}
    query = (
        sa.select(db.STATES.c.hour, db.STATES.c.blob, db.STATES.c.frontier)
        .where(db.STATES.c.line == line, db.STATES.c.series == sa.bindparam("name"))
        .order_by(db.STATES.c.hour.desc())
        .limit(1)
    )
    if before is not None:
        query = query.where(db.STATES.c.hour < before)
    for key in keys:
        row = connection.execute(query, {"name": key.text}).first()
        if row is not None:
            found[key] = StoredState(row.hour, SeriesState(row.blob, row.frontier))
    return found


def _check(connection: sa.Connection, commit: Commit) -> None:
    """The compare of compare and swap."""
    watermark = _watermark(connection, commit.line)
    if commit.kind == "live" and watermark != commit.lo:
        raise CommitLostError(commit.line, "the watermark", commit.lo, watermark)
    done: set[int] = set()
    for change in commit.hours:
        version = _partition_version(connection, commit.line, change.hour)
        if version != change.base_version:
            raise CommitLostError(
                commit.line, f"the version of hour {change.hour}", change.base_version, version
            )
        now = _states(connection, commit.line, change.bases, change.hour)
        for key, base in change.bases.items():
            stored = now.get(key)
            found = None if stored is None else Base(stored.hour, stored.state.hash)
            if found != base and (base is None or base.hour not in done):
                raise CommitLostError(commit.line, f"the state of series '{key.text}'", base, found)
        done.add(change.hour)


def _extend_range(connection: sa.Connection, line: str, hour: int, lo: int, hi: int) -> None:
    """Adds [lo, hi) to the ranges of an hour; a range that ends at `lo` grows instead."""
    grown = connection.execute(
        sa.update(db.RANGES)
        .where(db.RANGES.c.line == line, db.RANGES.c.hour == hour, db.RANGES.c.hi == lo)
        .values(hi=hi)
    )
    if grown.rowcount == 0:
        connection.execute(sa.insert(db.RANGES).values(line=line, hour=hour, lo=lo, hi=hi))


def _count(connection: sa.Connection, line: str, name: str, count: int) -> None:
    where = sa.and_(db.COUNTS.c.line == line, db.COUNTS.c.name == name)
    grown = connection.execute(
        sa.update(db.COUNTS).where(where).values(count=db.COUNTS.c.count + count)
    )
    if grown.rowcount == 0:
        connection.execute(sa.insert(db.COUNTS).values(line=line, name=name, count=count))
