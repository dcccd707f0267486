"""PostgreSQL, with TimescaleDB where it is installed: one SQL table per table, filled by COPY.

A view of the tables that can be rebuilt, like every sink; here each write and each rewrite is one
transaction, so that no reader sees half of it and no crash leaves one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, NamedTuple, Self

import psycopg2
import pyarrow as pa
import sqlalchemy as sa
from psycopg2 import errors
from pydantic import SecretStr

from iiot_platform.config.database import connection_url
from iiot_platform.config.settings import PG_SINK_URL, PostgresSettings
from iiot_platform.core import schema
from iiot_platform.core.clock import from_ms
from iiot_platform.core.errors import SinkError
from iiot_platform.sinks.postgres_rows import as_csv, last_of_each, marked, prepared
from iiot_platform.sinks.postgres_session import Session
from iiot_platform.sinks.postgres_tables import SqlTable
from iiot_platform.sinks.refusals import RefusedRowsError
from iiot_platform.sinks.sink import Server, Written

_OPTIONS: Final = ("lock_timeout=10000", "idle_in_transaction_session_timeout=60000")
_CONNECT_S: Final = "5"
"""A database that can not be reached holds up a live run for no longer than this."""
_REFUSALS: Final = frozenset({"22", "23", "54"})
"""Classes of errors that lie in a row: its data, a constraint, a key too long for an index."""
_MAX_OFFENDERS: Final = 4
"""Refused rows that are searched for one by one, before the rest is only counted."""
_MAKING: Final = "SELECT pg_advisory_xact_lock(hashtextextended('iiot tables of a sink', 0))"
_COLUMNS: Final = (
    "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)"
    " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p', 'v', 'f')"
    " AND a.attnum > 0 AND NOT a.attisdropped"
)
_TIMESCALE: Final = (
    "SELECT n.nspname, e.extversion FROM pg_extension e"
    " JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb'"
)


class _Refusal(NamedTuple):
    row: int
    text: str
    reason: str


class PostgresSink:
    """Writes tables to one schema of a database, and makes them there.

    Args:
        settings: where the database is and which schema.
        timeout_s: for one statement; a server that needs longer counts as away.
    """

    request_rows = 20_000

    def __init__(self, settings: PostgresSettings, *, timeout_s: float = 30.0) -> None:
        self._schema = settings.db_schema
        self._url = connection_url(_hasty(settings.url), self._schema, *_OPTIONS)
        self._where = f"PostgreSQL at {self._url.host}:{self._url.port or 5432}, database"
        self._where += f" '{self._url.database}'"
        self._timeout_s = timeout_s
        self._session: Session | None = None
        self._found: dict[str, dict[str, str]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was not committed is gone."""
        if self._session is not None:
            self._session.close()
        self._session = self._found = None

    def server(self) -> Server:
        """Which version answers, with TimescaleDB or without.

        Raises:
            SinkError: the server does not answer or does not let us in.
        """
        with self._transaction() as session:
            ((version,),) = session.execute("SHOW server_version")
            more = [f" with TimescaleDB {found}" for _, found in session.execute(_TIMESCALE)]
        return Server("PostgreSQL", f"{version}{''.join(more)}", can_delete=True)

    def write(self, table: schema.Table, rows: pa.Table) -> Written:
        """Write rows; the same time and tags replace what was there, whole.

        Rows that are marked as deleted go instead.

        Raises:
            RefusedRowsError: the server refuses some of the rows; all others are stored.
            SinkError: the server is away or does not let us in; nothing is stored.
        """
        return self._write(table, rows)

    def rewrite(
        self, table: schema.Table, line: str, start_ms: int, end_ms: int, rows: pa.Table
    ) -> Written:
        """Make rows all that a line has in a table with times in [start_ms, end_ms).

        Raises:
            RefusedRowsError: the server refuses some of the rows; all others are stored.
            SinkError: the server is away or does not let us in; all is as it was.
        """
        return self._write(table, rows, (line, from_ms(start_ms), from_ms(end_ms)))

    def _write(
        self, table: schema.Table, rows: pa.Table, instead_of: tuple[object, ...] = ()
    ) -> Written:
        found = prepared(table, rows)
        refused: list[_Refusal] = []
        target = SqlTable(table, self._schema)
        unsearched = 0
        with self._transaction() as session:
            self._make(session, target)
            if instead_of:
                session.execute(target.delete_range(), instead_of)
            gone = marked(table, found)
            if gone.any():
                found = _without_marked(session, target, found)
            for start in range(0, found.num_rows, self.request_rows):
                stop = min(start + self.request_rows, found.num_rows)
                unsearched += self._store(session, target, found, start, stop, refused)
        if refused:
            raise RefusedRowsError(
                self._where,
                table.name,
                row=refused[0].row,
                line=refused[0].text,
                reason=refused[0].reason,
                points=len(refused) + unsearched,
                of=rows.num_rows,
                advice="mend its cause, then fill the hour anew",
            )
        return Written(rows.num_rows, 0)

    def _store(
        self,
        session: Session,
        target: SqlTable,
        rows: pa.Table,
        lo: int,
        hi: int,
        refused: list[_Refusal],
    ) -> int:
        """Write the rows of [lo, hi); searches refused ones by halves, returns those left."""
        part = rows.slice(lo, hi - lo)
        error = _attempt(session, lambda: session.copy(target.copy(), as_csv(part)))
        if isinstance(error, errors.UniqueViolation):  # some stand already
            error = _attempt(session, lambda: _merge(session, target, part))
        if error is None:
            return 0
        if hi - lo > 1:
            if len(refused) >= _MAX_OFFENDERS:
                return hi - lo
            middle = (lo + hi) // 2
            return self._store(session, target, rows, lo, middle, refused) + self._store(
                session, target, rows, middle, hi, refused
            )
        text = as_csv(part).to_pybytes().decode().rstrip("\n")
        refused.append(_Refusal(lo, text, _words(error)))
        return 0

    def _make(self, session: Session, target: SqlTable) -> None:
        """Makes what the database lacks of a table.

        Raises:
            OtherColumnError: it has a column of another type.
        """
        found = self._standing(session).get(target.table.name)
        if found is None:
            session.execute(_MAKING)
            timescale = next((name for name, _ in session.execute(_TIMESCALE)), None)
            for statement in target.create(timescale):
                session.execute(statement)
            self._found = None
            found = self._standing(session)[target.table.name]  # another may have made it
        for statement in target.mend(self._where, found):
            session.execute(statement)
            self._found = None

    def _standing(self, session: Session) -> dict[str, dict[str, str]]:
        """The types of all columns of all tables of the schema, asked once."""
        if self._found is None:
            self._found = {}
            for table, column, found in session.execute(_COLUMNS, (self._schema,)):
                self._found.setdefault(table, {})[column] = found
        return self._found

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        """A session whose work stands when the block ends well, and is gone otherwise."""
        try:
            if self._session is None or not self._session.is_open:
                self._session, self._found = Session(self._url, self._timeout_s), None
            yield self._session
            self._session.commit()
        except psycopg2.Error as error:
            raise self._failure(error) from error
        except BaseException:
            self.close()
            raise

    def _failure(self, error: psycopg2.Error) -> SinkError:
        overdue = self._session is not None and self._session.is_overdue
        self.close()
        if overdue:
            words = f"does not answer within {self._timeout_s:g} s"
        elif isinstance(error, psycopg2.OperationalError) and error.pgcode is None:
            words = f"does not answer or does not let us in: {self._safe(_words(error))}"
        else:
            words = f"answers {error.pgcode}: {self._safe(_words(error))}"
        advice = (
            f"let the user of {PG_SINK_URL} create and write tables in schema '{self._schema}'"
            if isinstance(error, errors.InsufficientPrivilege)
            else "what is not written stays in the outbox and is tried again"
        )
        return SinkError(f"{self._where}, {words}; {advice}")

    def _safe(self, text: str) -> str:
        return text.replace(self._url.password, "***") if self._url.password else text


def _hasty(url: SecretStr) -> SecretStr:
    """The URL with a shorter time to connect than the ledger's, where it says none itself."""
    given = sa.make_url(url.get_secret_value())
    found = given.set(query={"connect_timeout": _CONNECT_S, **given.query})
    return SecretStr(found.render_as_string(hide_password=False))


def _attempt(session: Session, work: Callable[[], object]) -> psycopg2.Error | None:
    """What refuses rows; the work is then undone, and what came before it is not.

    Raises:
        psycopg2.Error: it is nothing that lies in the rows.
    """
    session.execute("SAVEPOINT part")
    try:
        work()
    except psycopg2.Error as error:
        if not session.is_open or (error.pgcode or "")[:2] not in _REFUSALS:
            raise
        session.execute("ROLLBACK TO SAVEPOINT part")
        return error
    session.execute("RELEASE SAVEPOINT part")
    return None


def _merge(session: Session, target: SqlTable, rows: pa.Table) -> None:
    make, copy, insert, drop = target.merge()
    session.execute(make)
    session.copy(copy, as_csv(last_of_each(target.table, rows)))
    session.execute(insert)
    session.execute(drop)


def _without_marked(session: Session, target: SqlTable, rows: pa.Table) -> pa.Table:
    """The rows that are not marked as deleted; those that are go from the database."""
    rows = last_of_each(target.table, rows)
    gone = marked(target.table, rows)
    for row in rows.filter(pa.array(gone)).select(target.key).to_pylist():
        session.execute(target.delete_row(), [row[name] for name in target.key])
    return rows.filter(pa.array(~gone))


def _words(error: psycopg2.Error) -> str:
    """What the server says, on one line."""
    said = error.diag.message_primary if error.diag is not None else None
    detail = error.diag.message_detail if said else None
    return " ".join(f"{said or error}{f' ({detail})' if detail else ''}".split())
