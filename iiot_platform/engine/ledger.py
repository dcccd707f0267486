"""The ledger: what was computed, from what, and where it stands.

Every change of tables is one transaction that first compares what it was computed from with what
stands (`swap`): a commit that lost writes nothing.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import schema
from iiot_platform.core.clock import now_ms
from iiot_platform.core.names import SeriesKey
from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.commit import Commit, CurrentFile, DirtyMark, StoredState
from iiot_platform.engine.errors import LedgerError
from iiot_platform.engine.ledger_database import LedgerDatabase, PostgresLedger, SqliteLedger
from iiot_platform.engine.partition import SeriesState
from iiot_platform.engine.swap import last_states, swap, versions, watermark

# what every batch asks is put together once: that takes longer than the answer
_ASSIGNMENT: Final = (
    sa.select(db.SETTINGS.c.body)
    .join_from(
        db.ASSIGNMENTS,
        db.SETTINGS,
        sa.and_(
            db.SETTINGS.c.line == db.ASSIGNMENTS.c.line,
            db.SETTINGS.c.version == db.ASSIGNMENTS.c.version,
        ),
    )
    .where(
        db.ASSIGNMENTS.c.line == sa.bindparam("line"),
        db.ASSIGNMENTS.c.hour == sa.bindparam("hour"),
    )
    .order_by(db.ASSIGNMENTS.c.id.desc())
    .limit(1)
)
_HOUR_FILES: Final = (
    sa.select(
        db.FILES.c.table_name, db.FILES.c.id, db.FILES.c.path, db.FILES.c.rows, db.FILES.c.level
    )
    .where(
        db.FILES.c.line == sa.bindparam("line"),
        db.FILES.c.table_name.in_(tuple(schema.TABLES)),
        db.FILES.c.hour == sa.bindparam("hour"),
        db.FILES.c.dropped_version.is_(None),
    )
    .order_by(db.FILES.c.id)
)


class Ledger:
    """One ledger; safe for any number of processes.

    Args:
        database: where it is kept; what is missing there is made.
        sinks: names of the databases that want to be told of every change.
        clock: Unix milliseconds, for what is merely recorded.
    """

    def __init__(
        self,
        database: LedgerDatabase,
        *,
        sinks: Iterable[str] = (),
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._database = database
        self._sinks = tuple(sinks)
        self._clock = clock
        try:
            database.make()
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError("opened", database.name, error) from error

    @classmethod
    def of(
        cls, home: Home, *, sinks: Iterable[str] = (), clock: Callable[[], int] = now_ms
    ) -> "Ledger":
        """The ledger of a home: in its database where it has one, else its SQLite file.

        Raises:
            LedgerError: the database refuses.
            OtherLayoutError: it was made by another version of the platform.
        """
        database = (
            SqliteLedger(home.ledger) if home.database is None else PostgresLedger(home.database)
        )
        return cls(database, sinks=sinks, clock=clock)

    @staticmethod
    def is_at(home: Home) -> bool:
        """True where the ledger of a home is there, or can be asked for without making a file."""
        return home.database is not None or home.ledger.exists()

    def close(self) -> None:
        """Closes every connection."""
        self._database.engine.dispose()

    @contextmanager
    def transaction(self, of: str | None = None) -> Iterator[sa.Connection]:
        """One transaction, alone among the writers of a name, or of everything.

        Args:
            of: the line or the lease whose rows alone are written; None: any.

        Raises:
            LedgerError: the database refuses; nothing was written.
        """
        try:
            with self._database.alone(of) as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError("written", self._database.name, error) from error

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A consistent view that holds nobody up.

        Raises:
            LedgerError: the database refuses.
        """
        try:
            with self._database.snapshot() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError("read", self._database.name, error) from error

    def watermark(self, line: str) -> int:
        """The offset behind the last one that live batches have taken."""
        with self.reading() as connection:
            return watermark(connection, line)

    def versions(self, line: str, hours: Iterable[int]) -> dict[int, int]:
        """How often each hour was committed; 0: never.

        Read them before anything else that a change of the hours is computed from.
        """
        with self.reading() as connection:
            return versions(connection, line, hours)

    def partition_version(self, line: str, hour: int) -> int:
        """How often the hour was committed; 0: never."""
        return self.versions(line, [hour])[hour]

    def assignment(self, line: str, hour: int) -> LineSettings | None:
        """The settings that an hour is computed under; None where it has none yet."""
        with self.reading() as connection:
            body = connection.execute(_ASSIGNMENT, {"line": line, "hour": hour}).scalar()
        return None if body is None else LineSettings.model_validate_json(body)

    def states(
        self, line: str, keys: Iterable[SeriesKey], *, before: int | None = None
    ) -> dict[SeriesKey, StoredState]:
        """The last state of each series, at all or in hours before one."""
        with self.reading() as connection:
            return last_states(connection, line, keys, before)

    def states_of(self, line: str, hour: int) -> dict[SeriesKey, SeriesState]:
        """The states behind one hour: its part of the checkpoint."""
        query = sa.select(db.STATES).where(db.STATES.c.line == line, db.STATES.c.hour == hour)
        with self.reading() as connection:
            return {
                SeriesKey.parse(row.series): SeriesState(row.blob, row.frontier)
                for row in connection.execute(query)
            }

    def files(self, line: str, table: str, hour: int) -> list[CurrentFile]:
        """The files that hold a table's rows of an hour, oldest first."""
        return self.hour_files(line, hour).get(table, [])

    def hour_files(self, line: str, hour: int) -> dict[str, list[CurrentFile]]:
        """The files of an hour by table, oldest first."""
        found: dict[str, list[CurrentFile]] = {}
        with self.reading() as connection:
            for table, *file in connection.execute(_HOUR_FILES, {"line": line, "hour": hour}):
                found.setdefault(table, []).append(CurrentFile(*file))
        return found

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

    def first_hour(self, line: str | None = None) -> int | None:
        """The oldest hour of a line, or of any, that was ever committed."""
        query = sa.select(sa.func.min(db.PARTITIONS.c.hour))
        if line is not None:
            query = query.where(db.PARTITIONS.c.line == line)
        with self.reading() as connection:
            first: int | None = connection.execute(query).scalar()
        return first

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
        with self.transaction(commit.line) as connection:
            return swap(connection, commit, sinks=self._sinks, now_ms=self._clock())
