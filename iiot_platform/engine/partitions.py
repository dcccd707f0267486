"""Questions to the ledger about a line's hours."""

import hashlib
from collections.abc import Iterable
from operator import itemgetter
from typing import NamedTuple

import sqlalchemy as sa

from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.ledger import Ledger

_PAGE = 500


class PartitionRecord(NamedTuple):
    """One hour as the ledger has it."""

    hour: int
    version: int
    settings_version: str
    settled: bool


def partitions(ledger: Ledger, line: str) -> list[PartitionRecord]:
    """The hours of a line that were ever committed, oldest first."""
    columns = db.PARTITIONS.c
    query = (
        sa.select(columns.hour, columns.version, columns.settings_version, columns.settled)
        .where(columns.line == line)
        .order_by(columns.hour)
    )
    with ledger.reading() as connection:
        return [PartitionRecord(*row) for row in connection.execute(query)]


def partition(ledger: Ledger, line: str, hour: int) -> PartitionRecord | None:
    """One hour; None where it was never committed."""
    columns = db.PARTITIONS.c
    query = sa.select(
        columns.hour, columns.version, columns.settings_version, columns.settled
    ).where(columns.line == line, columns.hour == hour)
    with ledger.reading() as connection:
        row = connection.execute(query).first()
    return None if row is None else PartitionRecord(*row)


def checkpoints(ledger: Ledger, line: str, hour: int) -> tuple[str, str]:
    """Names of the states that the series of an hour started from, and of those they hand on.

    Each is a hash of the sorted pairs (series, hash of its state) of the series that have
    readings in the hour.
    """
    here, earlier = db.STATES.alias("here"), db.STATES.alias("earlier")
    base = (
        sa.select(earlier.c.hash)
        .where(
            earlier.c.line == here.c.line,
            earlier.c.series == here.c.series,
            earlier.c.hour < here.c.hour,
        )
        .order_by(earlier.c.hour.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = sa.select(here.c.series, here.c.hash, base).where(
        here.c.line == line, here.c.hour == hour
    )
    started, handed_on = hashlib.blake2b(digest_size=8), hashlib.blake2b(digest_size=8)
    with ledger.reading() as connection:
        # sorted here: asked for order, SQLite takes the index of series and reads every hour
        for series, state, before in sorted(connection.execute(query), key=itemgetter(0)):
            started.update(f"{series}={before or ''};".encode())
            handed_on.update(f"{series}={state};".encode())
    return started.hexdigest(), handed_on.hexdigest()


def code_versions(ledger: Ledger, run_ids: Iterable[str]) -> set[str]:
    """The versions of the code that runs have computed with."""
    names = sorted(set(run_ids))
    found: set[str] = set()
    with ledger.reading() as connection:
        for start in range(0, len(names), _PAGE):
            query = sa.select(db.BATCHES.c.code_version).where(
                db.BATCHES.c.run_id.in_(names[start : start + _PAGE])
            )
            found.update(connection.execute(query.distinct()).scalars())
    return found
