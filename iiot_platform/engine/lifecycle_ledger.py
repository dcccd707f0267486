"""Births and deaths of Sparkplug nodes in the ledger."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.lifecycle import Event

if TYPE_CHECKING:
    from iiot_platform.engine.ledger import Ledger

_SESSIONS: Final = 2


class LedgerHistory:
    """The births and deaths of a line that the ledger keeps."""

    def __init__(self, ledger: "Ledger", line: str) -> None:
        self._ledger = ledger
        self._line = line

    def events(self, nodes: Iterable[str], lo: int, hi: int) -> list[Event]:
        """What offsets [lo, hi) need of these nodes, as far as it is below the watermark."""
        wanted = sorted(nodes)
        if not wanted:
            return []
        with self._ledger.reading() as connection:
            return [event for node in wanted for event in self._of_node(connection, node, lo, hi)]

    def nodes(self) -> list[str]:
        """Every node that was ever heard of."""
        query = sa.select(db.LIFECYCLE.c.node).where(db.LIFECYCLE.c.line == self._line)
        with self._ledger.reading() as connection:
            return sorted(connection.execute(query.distinct()).scalars())

    def _of_node(self, connection: sa.Connection, node: str, lo: int, hi: int) -> list[Event]:
        at = db.LIFECYCLE.c
        mine = sa.and_(at.line == self._line, at.node == node)
        births = (
            sa.select(at.offset)
            .where(mine, at.device == "", at.type == "NBIRTH", at.offset < lo)
            .order_by(at.offset.desc())
            .limit(_SESSIONS)
        )
        begins = list(connection.execute(births).scalars())
        start = begins[-1] if len(begins) == _SESSIONS else 0
        # grouped here: databases would go through the node's whole history for the groups' order
        before = (
            sa.select(at.device, at.offset)
            .where(mine, at.device != "", at.offset >= start, at.offset < lo)
            .order_by(at.offset)
        )
        last = {row.device: row.offset for row in connection.execute(before)}
        columns = sa.select(at.offset, at.topic, at.received_ms, at.payload)
        found = [
            *connection.execute(
                columns.where(mine, at.device == "", at.offset >= start, at.offset < lo)
            ),
            *connection.execute(columns.where(mine, at.offset >= lo, at.offset < hi)),
        ]
        one = columns.where(at.line == self._line, at.offset == sa.bindparam("wanted"))
        found += [connection.execute(one, {"wanted": offset}).one() for offset in last.values()]
        return [Event(*row) for row in found]


def add_events(connection: sa.Connection, line: str, events: Iterable[Event]) -> None:
    """Notes births and deaths of a line; those that are known stay."""
    at = db.LIFECYCLE.c
    rows = []
    for event in events:
        known = sa.select(at.offset).where(at.line == line, at.offset == event.offset)
        if connection.execute(known).first() is None:
            source = event.source
            rows.append(
                {
                    "line": line,
                    "offset": event.offset,
                    "node": source.node,
                    "device": source.device,
                    "type": source.type,
                    "topic": event.topic,
                    "received_ms": event.received,
                    "payload": event.payload,
                }
            )
    if rows:
        connection.execute(sa.insert(db.LIFECYCLE), rows)
