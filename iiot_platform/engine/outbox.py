"""The backlog of each database behind the tables, kept in the ledger.

Entries are put there by commits, in the same transaction as the files they speak of. What an
entry's file was merged into or replaced by stands for it: rows are read as they are now.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa

from iiot_platform.core import schema
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.commit import Operation
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.swap import last_batch, upsert
from iiot_platform.engine.table_store import TableStore

_HOURS: Final = 100
"""Hours that one statement puts into the outbox."""


@dataclass(frozen=True)
class Entry:
    """One change of a table's hour that the database does not have yet."""

    id: int
    line: str
    table: str
    hour: int
    operation: Operation
    file: int | None
    path: str | None = None
    """Of the file, where it counts."""
    replaced: bool = False
    """True where a later entry brings what the file was merged into or replaced by."""


class LedgerOutbox:
    """The outbox of one sink, for every line of one ledger.

    A sink that is configured for the first time, or again, or missed the commits of a process that
    did not know of it, is behind its feed: what changed since is taken up whole, newest hour first.
    """

    def __init__(self, ledger: Ledger, store: TableStore, sink: str) -> None:
        self._ledger = ledger
        self._store = store
        self._sink = sink

    def pending(self, line: str, limit: int) -> Sequence[Entry]:
        """The first pending entries, in the order in which they must be done."""
        query = (
            sa.select(db.OUTBOX)
            .where(self._of(line), db.OUTBOX.c.rejected.is_(None))
            .order_by(db.OUTBOX.c.id)
            .limit(limit)
        )
        with self._ledger.reading() as connection:
            return self._listed(connection, connection.execute(query).all())

    def backlog(self, line: str) -> int:
        """How many entries are pending."""
        query = sa.select(sa.func.count()).where(self._of(line), db.OUTBOX.c.rejected.is_(None))
        with self._ledger.reading() as connection:
            return connection.execute(query).scalar_one()

    def rejected(self, line: str) -> list[tuple[Entry, str]]:
        """The entries that the database refused, with its words."""
        query = sa.select(db.OUTBOX).where(self._of(line), db.OUTBOX.c.rejected.is_not(None))
        with self._ledger.reading() as connection:
            return [
                (_entry(row), row.rejected)
                for row in connection.execute(query.order_by(db.OUTBOX.c.id))
            ]

    def rows(self, entry: Entry) -> pa.Table:
        """The rows to write: the file's while it stands alone, else all of the hour.

        None where a later entry brings what the file became: each would bring the hour again.
        """
        table = schema.TABLES[entry.table]
        if entry.replaced:
            paths = []
        elif entry.path is not None and entry.operation == "upsert":
            paths = [entry.path]
        else:
            files = self._ledger.files(entry.line, entry.table, entry.hour)
            paths = [file.path for file in files]
        return self._store.read(table, paths)

    def _listed(self, connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[Entry]:
        """Entries with what has become of their files, asked once for all of them.

        A file that goes later is still on disk, and what it became is pending behind its entry.
        """
        files = [row.file for row in rows if row.file is not None]
        own, new, later = db.FILES.alias(), db.FILES.alias(), db.OUTBOX.alias()
        current = sa.select(own.c.id, own.c.path).where(
            own.c.id.in_(files), own.c.dropped_version.is_(None)
        )
        became = (
            sa.select(own.c.id, sa.func.max(later.c.id))
            .join_from(
                own,
                new,
                sa.and_(
                    new.c.line == own.c.line,
                    new.c.table_name == own.c.table_name,
                    new.c.hour == own.c.hour,
                    new.c.added_version == own.c.dropped_version,
                ),
            )
            .join(later, later.c.file == new.c.id)
            .where(
                own.c.id.in_(files),
                later.c.sink == self._sink,
                later.c.line == own.c.line,
                later.c.rejected.is_(None),
            )
            .group_by(own.c.id)
        )
        paths = {row.id: row.path for row in connection.execute(current)}
        behind = {row[0]: row[1] for row in connection.execute(became)}
        return [
            replace(
                _entry(row), path=paths.get(row.file), replaced=behind.get(row.file, 0) > row.id
            )
            for row in rows
        ]

    def begin(self, entry: Entry) -> None:
        """Journals that a rewrite has begun; it stays pending."""
        self._update([entry], started=True)

    def done(self, entries: Sequence[Entry]) -> None:
        """Forgets entries that the database has; clears the failures of their lines."""
        with self._ledger.transaction(_line_of(entries)) as connection:
            connection.execute(
                sa.delete(db.OUTBOX).where(db.OUTBOX.c.id.in_([entry.id for entry in entries]))
            )
            lines = {entry.line for entry in entries}
            for line in lines:
                self._recovered(connection, line)

    def reject(self, entry: Entry, message: str) -> None:
        """Sets an entry aside that the database refuses; clears the failures of its line."""
        self._update([entry], rejected=message)
        with self._ledger.transaction(entry.line) as connection:
            self._recovered(connection, entry.line)

    def failed(self, line: str, message: str, retry_at_ms: int) -> None:
        """Notes a failure, and when to try again."""
        failures = self.failures(line) + 1
        with self._ledger.transaction(line) as connection:
            upsert(
                connection,
                db.SINKS,
                {"sink": self._sink, "line": line},
                {"failures": failures, "retry_at_ms": retry_at_ms, "message": message},
            )

    def failures(self, line: str) -> int:
        """Failures since the last success."""
        row = self._failing(line)
        return 0 if row is None else int(row.failures)

    def retry_at(self, line: str) -> int | None:
        """When to try again (Unix ms); None where the last try went well."""
        row = self._failing(line)
        return None if row is None else int(row.retry_at_ms)

    def last_error(self, line: str) -> str | None:
        """What the last failure was; None where the last try went well."""
        row = self._failing(line)
        return None if row is None else str(row.message)

    def is_longer(self, line: str, than: int) -> bool:
        """True where more entries are pending than this."""
        query = (
            sa.select(db.OUTBOX.c.id)
            .where(self._of(line), db.OUTBOX.c.rejected.is_(None))
            .order_by(db.OUTBOX.c.id)
            .offset(than)
            .limit(1)
        )
        with self._ledger.reading() as connection:
            return connection.execute(query).first() is not None

    def rebuild(
        self, line: str, hours: Sequence[int], tables: Iterable[str] | None = None
    ) -> list[int]:
        """Puts tables of these hours, all by default, into the outbox anew; returns the entries.

        They stand for what was pending or set aside of these hours, which is forgotten.
        """
        names = [table.name for table in schema.measured()] if tables is None else list(tables)
        with self._ledger.transaction(line) as connection:
            return self._refill(connection, line, hours, names)

    def missing(self, line: str) -> list[int]:
        """Hours that changed while the sink was not told, newest first; all where it is new."""
        with self._ledger.reading() as connection:
            return self._missing(connection, line)

    def take_up(self, line: str) -> int:
        """Puts what is missing into the outbox, and follows the line from now on; returns hours."""
        with self._ledger.transaction(line) as connection:
            hours = self._missing(connection, line)
            self._refill(connection, line, hours, [table.name for table in schema.measured()])
            key = {"sink": self._sink, "line": line}
            upsert(connection, db.FEEDS, key, {"batch": last_batch(connection, line)})
        return len(hours)

    def _missing(self, connection: sa.Connection, line: str) -> list[int]:
        feed, hours = db.FEEDS.c, db.PARTITIONS.c
        followed = connection.execute(
            sa.select(feed.batch).where(feed.sink == self._sink, feed.line == line)
        ).scalar()
        if followed is not None and followed >= last_batch(connection, line):
            return []
        query = sa.select(hours.hour).where(hours.line == line, hours.batch > (followed or 0))
        return list(connection.execute(query.order_by(hours.hour.desc())).scalars())

    def _refill(
        self, connection: sa.Connection, line: str, hours: Sequence[int], names: Sequence[str]
    ) -> list[int]:
        """Rewrites of whole hours in place of what was pending or set aside of them."""
        made: list[int] = []
        for start in range(0, len(hours), _HOURS):
            page = hours[start : start + _HOURS]
            connection.execute(
                sa.delete(db.OUTBOX).where(
                    self._of(line), db.OUTBOX.c.hour.in_(page), db.OUTBOX.c.table_name.in_(names)
                )
            )
            rows = [
                {
                    "sink": self._sink,
                    "line": line,
                    "table_name": name,
                    "hour": hour,
                    "operation": "rewrite",
                    "started": False,
                }
                for hour in page
                for name in names
            ]
            insert = sa.insert(db.OUTBOX).returning(db.OUTBOX.c.id, sort_by_parameter_order=True)
            made += connection.execute(insert, rows).scalars()
        return made

    def lines(self) -> list[str]:
        """The lines that the sink follows or has entries of, configured today or not."""
        with self._ledger.reading() as connection:
            found = [
                connection.execute(
                    sa.select(table.c.line).where(table.c.sink == self._sink).distinct()
                ).scalars()
                for table in (db.FEEDS, db.OUTBOX)
            ]
            return sorted({line for lines in found for line in lines})

    def forget(self, line: str) -> int:
        """Drops all that is known of the sink for a line; returns the entries that went."""
        with self._ledger.transaction(line) as connection:
            gone = connection.execute(sa.delete(db.OUTBOX).where(self._of(line))).rowcount
            for table in (db.FEEDS, db.SINKS, db.TOLD):
                connection.execute(
                    sa.delete(table).where(table.c.sink == self._sink, table.c.line == line)
                )
        return gone

    def of(self, ids: Sequence[int]) -> dict[int, str | None]:
        """Which of these entries are not done; what the database said of those set aside."""
        query = sa.select(db.OUTBOX.c.id, db.OUTBOX.c.rejected).where(db.OUTBOX.c.id.in_(ids))
        with self._ledger.reading() as connection:
            return {row.id: row.rejected for row in connection.execute(query)}

    def _of(self, line: str) -> sa.ColumnElement[bool]:
        return sa.and_(db.OUTBOX.c.sink == self._sink, db.OUTBOX.c.line == line)

    def _failing(self, line: str) -> sa.Row[Any] | None:
        query = sa.select(db.SINKS).where(db.SINKS.c.sink == self._sink, db.SINKS.c.line == line)
        with self._ledger.reading() as connection:
            return connection.execute(query).first()

    def _recovered(self, connection: sa.Connection, line: str) -> None:
        connection.execute(
            sa.delete(db.SINKS).where(db.SINKS.c.sink == self._sink, db.SINKS.c.line == line)
        )

    def _update(self, entries: Sequence[Entry], **values: object) -> None:
        with self._ledger.transaction(_line_of(entries)) as connection:
            connection.execute(
                sa.update(db.OUTBOX)
                .where(db.OUTBOX.c.id.in_([entry.id for entry in entries]))
                .values(**values)
            )


def sinks_of(ledger: Ledger) -> list[str]:
    """The names of all sinks that the ledger knows, configured today or not."""
    with ledger.reading() as connection:
        found = [
            connection.execute(sa.select(table.c.sink).distinct()).scalars()
            for table in (db.FEEDS, db.OUTBOX)
        ]
        return sorted({name for names in found for name in names})


def _entry(row: sa.Row[Any]) -> Entry:
    return Entry(row.id, row.line, row.table_name, row.hour, row.operation, row.file)


def _line_of(entries: Sequence[Entry]) -> str | None:
    """The line of all entries; None where they are of several."""
    lines = {entry.line for entry in entries}
    return lines.pop() if len(lines) == 1 else None
