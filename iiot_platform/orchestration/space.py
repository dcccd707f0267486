"""Disk space of Dagster's storage: what it takes, and making use again of what is free in it."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dagster import DagsterInstance
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._core.storage.schedules import SqlScheduleStorage
from sqlalchemy.engine import Connection

_INCREMENTAL: Final = 2
_CHUNK_PAGES: Final = 256
"""Pages that one transaction gives back: about 1 MB, some milliseconds."""
_PAUSE_S: Final = 0.1
_WORTH_BYTES: Final = 16 * 2**20
"""Less than this is left to be filled again."""
_WORTH_SHARE: Final = 0.3
_SLACK_SHARE: Final = 0.1
"""Share of what is in use that stays free, since the next runs need it at once."""
_VACUUM_BYTES: Final = 64 * 2**20
"""Files that can not shrink step by step are copied whole up to this size, which blocks writers."""
_RELATIONS: Final = (
    "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class"
    " WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
)
_VACUUMED: Final = tuple(
    table.name
    for table in (
        SqlEventLogStorageTable,
        AssetEventTagsTable,
        AssetCheckExecutionsTable,
        AssetKeyTable,
        RunsTable,
        RunTagsTable,
    )
)


@dataclass(frozen=True)
class Space:
    """What files or tables take.

    Attributes:
        bytes: altogether.
        free: of these, what holds nothing; PostgreSQL does not tell, and it counts as 0.
    """

    bytes: int = 0
    free: int = 0

    @property
    def used(self) -> int:
        """What holds something."""
        return self.bytes - self.free


def make_shrinkable(path: Path) -> None:
    """Lets a file that has just been made give pages back step by step later on."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}")
        connection.execute("VACUUM")


def space(instance: DagsterInstance) -> Space:
    """What the SQLite files or the PostgreSQL schema of an instance take; else nothing."""
    total = Space()
    for opened in _files(instance):
        with opened as connection:
            if _is_postgres(connection):
                return Space(int(connection.exec_driver_sql(_RELATIONS).scalar_one()))
            if _is_file(connection):
                found = _space(connection)
                total = Space(total.bytes + found.bytes, total.free + found.free)
    return total


def reclaim(instance: DagsterInstance, *, worth_bytes: int = _WORTH_BYTES) -> int:
    """Gives back what is free where that is much; returns the bytes.

    PostgreSQL keeps most of what is free, and is told that it may be filled again.

    Args:
        instance: has the files.
        worth_bytes: less than this is not worth it.
    """
    before = space(instance).bytes
    for opened in _files(instance):
        with opened as connection:
            if _is_postgres(connection):
                for table in _VACUUMED:
                    connection.exec_driver_sql(f"VACUUM {table}")
                break
            if _is_file(connection):
                _reclaim(connection, worth_bytes)
    return before - space(instance).bytes


def _reclaim(connection: Connection, worth_bytes: int) -> None:
    found = _space(connection)
    if found.free < worth_bytes or found.free < _WORTH_SHARE * found.bytes:
        return
    if _pragma(connection, "auto_vacuum") == _INCREMENTAL:
        page = _pragma(connection, "page_size")
        pages = int(found.free - _SLACK_SHARE * found.used) // page
        driver: Any = connection.connection.driver_connection
        for given in range(0, pages, _CHUNK_PAGES):
            began = time.monotonic()
            # a page goes with every step, and `execute` makes only one
            driver.executescript(f"PRAGMA incremental_vacuum({min(_CHUNK_PAGES, pages - given)})")
            time.sleep(min(_PAUSE_S, time.monotonic() - began))  # lets others write
    elif found.used <= _VACUUM_BYTES:
        connection.exec_driver_sql(f"PRAGMA auto_vacuum={_INCREMENTAL}")
        connection.exec_driver_sql("VACUUM")
    connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _files(instance: DagsterInstance) -> Iterator[AbstractContextManager[Connection]]:
    if isinstance(instance.run_storage, SqlRunStorage):
        yield instance.run_storage.connect()
    if isinstance(instance.event_log_storage, SqlEventLogStorage):
        yield instance.event_log_storage.index_connection()
    if isinstance(instance.schedule_storage, SqlScheduleStorage):
        yield instance.schedule_storage.connect()


def _is_postgres(connection: Connection) -> bool:
    return connection.engine.dialect.name == "postgresql"


def _is_file(connection: Connection) -> bool:
    engine = connection.engine
    return engine.dialect.name == "sqlite" and engine.url.database not in (None, "", ":memory:")


def _space(connection: Connection) -> Space:
    page = _pragma(connection, "page_size")
    pages, free = _pragma(connection, "page_count"), _pragma(connection, "freelist_count")
    return Space(pages * page, free * page)


def _pragma(connection: Connection, name: str) -> int:
    value: Any = connection.exec_driver_sql(f"PRAGMA {name}").scalar()
    return int(value)
