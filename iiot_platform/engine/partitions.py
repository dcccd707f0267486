"""Questions to the ledger about a line's hours."""

import hashlib
from collections.abc import Iterable
from operator import itemgetter
from typing import Final, NamedTuple

import sqlalchemy as sa

from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.ledger import Ledger

_PAGE = 500

_HERE: Final = db.STATES.alias("here")
_EARLIER: Final = db.STATES.alias("earlier")
_HOUR_HASHES: Final = sa.select(
    _HERE.c.series,
    _HERE.c.hash,
    sa.select(_EARLIER.c.hash)
    .where(
        _EARLIER.c.line == _HERE.c.line,
        _EARLIER.c.series == _HERE.c.series,
        _EARLIER.c.hour < _HERE.c.hour,
    )
    .order_by(_EARLIER.c.hour.desc())
    .limit(1)
    .scalar_subquery(),
).where(_HERE.c.line == sa.bindparam("line"), _HERE.c.hour == sa.bindparam("hour"))
"""The state of each series in an hour, and the one before it."""


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
    asked = {"line": line, "hour": hour}
    started, handed_on = hashlib.blake2b(digest_size=8), hashlib.blake2b(digest_size=8)
    with ledger.reading() as connection:
        # sorted here: asked for order, SQLite takes the index of series and reads every hour
        for series, state, before in sorted(
            connection.execute(_HOUR_HASHES, asked), key=itemgetter(0)
        ):
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
