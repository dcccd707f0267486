"""Dagster's own storage on SQLite, for many processes that write often.

Differs from Dagster's default in what costs time and fails under load: three files instead of one
more for every run, connections that are kept, one transaction per event, commits that do not wait
for the disk, and a patient lock everywhere (the default waits 5 s for runs, 30 s for events).
A commit that the machine loses with its power is only bookkeeping: results are in the ledger.
"""

import fcntl
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.event_log.polling_event_watcher import SqlPollingEventWatcher
from dagster._core.storage.event_log.schema import AssetKeyTable
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sql import create_engine
from dagster._serdes import ConfigurableClassData
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

from iiot_platform.orchestration.space import make_shrinkable

BUSY_TIMEOUT_S: Final = 60
_FILES: Final = ("runs.db", "event_log.db", "schedules.db")
_PRAGMAS: Final = (
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_S * 1_000}",
    "PRAGMA synchronous=NORMAL",
    "PRAGMA temp_store=MEMORY",
)


@lru_cache(maxsize=8)
def _engine(url: str) -> Engine:
    """The engine of a file, one per process."""
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=8,
        max_overflow=-1,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        for pragma in _PRAGMAS:
            connection.execute(pragma)

    return engine


class _Connections(threading.local):
    """The connection that a thread is using, so that what is nested shares its transaction."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._current: Connection | None = None

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        if self._current is not None:
            yield self._current
            return
        with _engine(self._url).begin() as connection:
            self._current = connection
            try:
                yield connection
            finally:
                self._current = None


class _Connected:
    """Constructor and connections that runs and schedules share."""

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._connections = _Connections(conn_string)
        super().__init__(conn_string, inst_data)  # type: ignore[call-arg]  # of the storage beside

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection in a transaction."""
        with self._connections.connect() as connection:
            yield connection


class Runs(_Connected, SqliteRunStorage):
    """Runs, their tags and what they were made of."""


class Schedules(_Connected, SqliteScheduleStorage):
    """Sensors, schedules, backfills and their ticks."""


class Events(ConsolidatedSqliteEventLogStorage):
    """The events of all runs in one file."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._watcher: SqlPollingEventWatcher | None = None
        self._connections: _Connections | None = None
        super().__init__(base_dir, inst_data)

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        if self._connections is None:
            self._connections = _Connections(self._conn_string)
        with self._connections.connect() as connection:
            yield connection

    def store_event(self, event: EventLogEntry) -> None:
        """Stores an event and all that hangs on it in one transaction."""
        with self._connect():
            super().store_event(event)

    @property
    def supports_asset_checks(self) -> bool:
        """True, without looking for the table with every check."""
        return True  # the file is never older than Dagster 1.13

    def _has_asset_key_index_cols_on_connection(self, _connection: Connection) -> bool:
        return True  # likewise

    def _store_asset_event(self, conn: Connection, event: EventLogEntry, event_id: int) -> None:
        """Keeps the newest event of an asset; an update first, since nearly all are known."""
        key = event.dagster_event.asset_key if event.dagster_event else None
        values = self._get_asset_entry_values(event, event_id, True) if key else None  # noqa: FBT003 - Dagster's
        if key is None or not values:
            return
        table = AssetKeyTable
        update = table.update().values(**values).where(table.c.asset_key == key.to_string())
        if not conn.execute(update).rowcount:
            super()._store_asset_event(conn, event, event_id)

    def watch(self, run_id: str, cursor: str | None, callback: Callable[..., Any]) -> None:
        """Tells of new events by asking: a change is in the write-ahead log, not in the file."""
        if self._watcher is None:
            self._watcher = SqlPollingEventWatcher(self)
        self._watcher.watch_run(run_id, cursor, callback)

    def end_watch(self, run_id: str, handler: Callable[..., Any]) -> None:
        """Tells no more."""
        if self._watcher is not None:
            self._watcher.unwatch_run(run_id, handler)

    def dispose(self) -> None:
        """Ends what tells of new events."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None


def sqlite_parts(base_dir: str) -> tuple[Runs, Events, SqliteScheduleStorage]:
    """Runs, events and schedules below the folder of an instance, made where they are not there."""
    folder = Path(base_dir) / "storage"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / "init.lock"):
        paths = [folder / name for name in _FILES]
        runs, events, schedules = paths
        if events.exists() and _is_stamped(runs) and _is_stamped(schedules):
            # the code server opens an instance for every look of the daemon
            return Runs(_url(runs)), Events(str(folder)), Schedules(_url(schedules))
        new = [path for path in paths if not path.exists()]
        parts = Runs.from_local(str(folder)), Events(str(folder)), Schedules.from_local(str(folder))
        for path in new:
            make_shrinkable(path)
    return parts


def _url(path: Path) -> str:
    return f"sqlite:///{path.absolute()}"


def _is_stamped(path: Path) -> bool:
    """True where a file has the stamp that Dagster leaves in it once its tables are made.

    Dagster looks for it, too, but loads all its migrations before it does.
    """
    if not path.exists():
        return False
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
        try:
            return connection.execute("SELECT 1 FROM alembic_version").fetchone() is not None
        except sqlite3.OperationalError:
            return False


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Several processes start at once, and only one of them may make the files."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
