"""Deletes table files that nobody needs any more; never one that counts.

A file goes when it was dropped longer than the grace period ago and no kept version of its hour
holds it, or when it is that old and the ledger never heard of it: a run died before its commit.
The grace period must be longer than any run and any reader takes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from iiot_platform.core.clock import MS_PER_S, now_ms
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.table_store import TableStore

_PAGE: Final = 500


@dataclass(frozen=True)
class Collected:
    """What a collection deleted.

    Attributes:
        superseded: files of versions that are kept no longer.
        orphans: files that the ledger does not know.
        bytes: size of both.
    """

    superseded: int
    orphans: int
    bytes: int


def collect(
    ledger: Ledger,
    store: TableStore,
    *,
    grace_s: float,
    keep_versions: int,
    clock: Callable[[], int] = now_ms,
) -> Collected:
    """Deletes superseded files and orphans; safe beside live batches.

    Args:
        ledger: what is current.
        store: where the files are.
        grace_s: how long a file stays after it was dropped or, unknown, after it was written.
        keep_versions: versions of an hour whose files stay, the current one included.
        clock: Unix milliseconds.

    Raises:
        LedgerError: the ledger can not be read or written.
        StorageError: a file can not be deleted.
    """
    dropped_before_ms = clock() - int(grace_s * MS_PER_S)
    written_before_s = time.time() - grace_s
    found = {
        path
        for path in store.files()
        if (age := store.modified_s(path)) is not None and age < written_before_s
    }
    superseded = set(_forget(ledger, dropped_before_ms, keep_versions))
    orphans = found - _known(ledger) - superseded
    size = 0
    for path in (*superseded, *orphans):
        size += store.remove_older(path, written_before_s)
    return Collected(len(superseded), len(orphans), size)


def _forget(ledger: Ledger, dropped_before_ms: int, keep_versions: int) -> list[str]:
    """Strikes superseded files off the ledger; returns the paths that no other entry names."""
    files, hours = db.FILES.c, db.PARTITIONS.c
    query = (
        sa.select(files.id, files.path)
        .join_from(
            db.FILES, db.PARTITIONS, sa.and_(hours.line == files.line, hours.hour == files.hour)
        )
        .where(
            files.dropped_ms < dropped_before_ms,
            files.dropped_version <= hours.version - keep_versions + 1,
        )
        .limit(_PAGE)
    )
    gone: list[str] = []
    while True:
        with ledger.transaction() as connection:
            rows = connection.execute(query).all()
            if not rows:
                return gone
            paths = {row.path for row in rows}
            connection.execute(sa.delete(db.FILES).where(files.id.in_([row.id for row in rows])))
            shared = sa.select(files.path).where(files.path.in_(paths))
            gone += paths - set(connection.execute(shared).scalars())


def _known(ledger: Ledger) -> set[str]:
    """Every path of the ledger, read after the disk: what is committed meanwhile is known."""
    with ledger.reading() as connection:
        return set(connection.execute(sa.select(db.FILES.c.path)).scalars())
