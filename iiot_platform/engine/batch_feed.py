"""The batches that have committed since the last look."""

from typing import Final, NamedTuple

import sqlalchemy as sa

from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.ledger import Ledger

_OVERLAP: Final = 200
"""Ids that are looked at again: a commit may become visible after one with a higher id."""
_MOST: Final = 10_000


class FinishedBatch(NamedTuple):
    """A batch of any kind that has committed."""

    line: str
    kind: str
    seconds: float


class BatchFeed:
    """Tells of every batch once, beginning with those that commit after the first look."""

    def __init__(self) -> None:
        self._newest: int | None = None
        self._told: set[int] = set()

    def start(self) -> None:
        """Begin with an empty ledger, where there is none yet."""
        self._newest = self._newest or 0

    def read(self, ledger: Ledger) -> list[FinishedBatch]:
        """The batches that are new, oldest first; at most some thousands at once.

        Raises:
            LedgerError: the ledger can not be read.
        """
        batches = db.BATCHES.c
        with ledger.reading() as connection:
            if self._newest is None:
                self._newest = connection.execute(sa.select(sa.func.max(batches.id))).scalar() or 0
                after = self._newest - _OVERLAP
                query = sa.select(batches.id).where(batches.id > after)
                self._told = set(connection.execute(query).scalars())
                return []
            query = (
                sa.select(batches.id, batches.line, batches.kind, batches.seconds)
                .where(batches.id > self._newest - _OVERLAP)
                .order_by(batches.id)
                .limit(_MOST)
            )
            found = [row for row in connection.execute(query) if row.id not in self._told]
        self._told.update(row.id for row in found)
        self._newest = max([self._newest, *(row.id for row in found)])
        self._told = {told for told in self._told if told > self._newest - _OVERLAP}
        return [FinishedBatch(row.line, row.kind, row.seconds) for row in found]
