"""Dagster's own storage on PostgreSQL, with connections that are kept.

`dagster_postgres` makes a connection for every statement outside the web server, since instances
come and go; here they share one pool per process, as in the web server. An event is one
transaction and tells nobody (nothing listens), and does not wait for the server's disk: a crash
of the server takes the last events of a run that was under way. The next change of any run's
status, which waits, saves all that came before.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqlEventLogStorageMetadata, SqlEventLogStorageTable
from dagster._core.storage.runs import RunStorageSqlMetadata
from dagster._core.storage.schedules import ScheduleStorageSqlMetadata
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage
from dagster_postgres.utils import DagsterPostgresException, create_pg_connection
from pydantic import SecretStr
from sqlalchemy.engine import Connection, Engine

from iiot_platform.config.database import connect, connection_url, lock, make_schema, shown
from iiot_platform.core.errors import StorageError

SCHEMA: Final = "dagster"
_TABLES: Final = frozenset(
    name
    for metadata in (RunStorageSqlMetadata, SqlEventLogStorageMetadata, ScheduleStorageSqlMetadata)
    for name in metadata.tables
)


class DatabaseAwayError(StorageError):
    """The database of Dagster's storage can not be used."""

    def __init__(self, database: SecretStr, cause: Exception) -> None:
        # after its last try, Dagster tells how often it has tried, and keeps why in the cause
        told = cause.__cause__ if isinstance(cause, DagsterPostgresException) else cause
        reason = str(getattr(told, "orig", None) or told or cause).strip()
        super().__init__(
            f"Dagster's storage in schema '{SCHEMA}' of {shown(database)} can not be used: {reason}"
        )


@lru_cache(maxsize=8)
def _engine(url: sa.URL) -> Engine:
    """The connections of a process."""
    return connect(url, isolation_level="AUTOCOMMIT", pool_size=4, max_overflow=-1)


class _Kept:
    """Uses the connections of the process; the tables are there already."""

    _engine: Engine
    _options: tuple[str, ...] = ()
    """Settings of the server for its connections."""

    def __init__(self, database: SecretStr, *, make: bool = False) -> None:
        self._database = database
        url = connection_url(database, SCHEMA, *self._options)
        text = url.render_as_string(hide_password=False)
        super().__init__(text, should_autocreate_tables=make)  # type: ignore[call-arg]  # of the storage beside
        self._engine = _engine(url)

    def optimize_for_webserver(
        self,
        statement_timeout: int,
        pool_recycle: int,  # noqa: ARG002 - the pool has its own
        max_overflow: int,  # noqa: ARG002 - likewise
    ) -> None:
        """Lets no question of a reader take longer than this (ms)."""
        options = (*self._options, f"statement_timeout={statement_timeout}")
        self._engine = _engine(connection_url(self._database, SCHEMA, *options))


class Runs(_Kept, PostgresRunStorage):
    """Runs, their tags and what they were made of."""


class Schedules(_Kept, PostgresScheduleStorage):
    """Sensors, schedules, backfills and their ticks."""


class Events(_Kept, PostgresEventLogStorage):
    """The events of all runs."""

    _options = ("synchronous_commit=off",)

    def __init__(self, database: SecretStr, *, make: bool = False) -> None:
        self._current = threading.local()
        super().__init__(database, make=make)

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        current = getattr(self._current, "connection", None)
        if current is not None:
            yield current
            return
        with create_pg_connection(self._engine) as connection:
            yield connection

    def store_event(self, event: EventLogEntry) -> None:
        """Stores an event and all that hangs on it in one transaction."""
        kind = event.dagster_event_type
        of_asset = kind in ASSET_EVENTS and event.get_dagster_event().asset_key is not None
        of_check = kind in ASSET_CHECK_EVENTS
        insert = self.prepare_insert_event(event).returning(SqlEventLogStorageTable.c.id)
        with self._transaction(whole=of_asset or of_check) as connection:
            event_id = int(connection.execute(insert).scalar_one())
            if of_asset:
                self._store_asset_event_tags(connection, [event], [event_id])
                self._store_asset_event(connection, event, event_id)
            if of_check:
                self.store_asset_check_event(event, event_id)

    @contextmanager
    def _transaction(self, *, whole: bool) -> Iterator[Connection]:
        """A connection that everything within uses; one statement alone needs no transaction."""
        with create_pg_connection(self._engine) as opened:
            connection = (
                opened.execution_options(isolation_level="READ COMMITTED") if whole else opened
            )
            with connection.begin():
                self._current.connection = connection
                try:
                    yield connection
                finally:
                    self._current.connection = None

    @property
    def supports_asset_checks(self) -> bool:
        """True, without looking for the table with every check."""
        return True  # the schema is never older than Dagster 1.13


def postgres_parts(database: SecretStr) -> tuple[Runs, Events, Schedules]:
    """Runs, events and schedules in a schema of a database, made where they are not there.

    Raises:
        DatabaseAwayError: the database refuses.
    """
    try:
        _make(database)
    except (sa.exc.SQLAlchemyError, DagsterPostgresException) as error:
        raise DatabaseAwayError(database, error) from error
    return Runs(database), Events(database), Schedules(database)


@lru_cache(maxsize=8)
def _make(database: SecretStr) -> None:
    """Makes the tables that are missing; several processes start at once, and one makes them."""
    engine = _engine(connection_url(database, SCHEMA))
    with create_pg_connection(engine) as opened:
        connection = opened.execution_options(isolation_level="READ COMMITTED")
        if _made(connection):
            return
        connection.rollback()
        with connection.begin():
            make_schema(connection, SCHEMA)
        with connection.begin():
            lock(connection, "dagster tables")
            if not _made(connection):
                for part in (Runs, Events, Schedules):
                    part(database, make=True)


def _made(connection: Connection) -> bool:
    inspector: Any = sa.inspect(connection)
    return set(inspector.get_table_names(schema=SCHEMA)) >= _TABLES
