"""The ledger's part of an import: hours that another machine has captured, to be computed here."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from iiot_platform.core.clock import hour_from_key, now_ms
from iiot_platform.core.errors import StorageError
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.lifecycle import Event
from iiot_platform.engine.lifecycle_ledger import add_events
from iiot_platform.engine.log_export import Export, LedgerPart, outcome
from iiot_platform.engine.log_verify import SealedLog
from iiot_platform.engine.table_store import TableStore


class Deviation(NamedTuple):
    """Where an hour came to something else than where it was exported; `what` may be a table."""

    hour: str
    what: str
    detail: str


def collide(sealed: SealedLog, export: Export) -> None:
    """Looks whether this log can take the records of an export.

    Raises:
        StorageError: the line has a log of its own here, so that offsets would collide.
    """
    here = sealed.segments(export.line) if sealed.exists() else []
    known = [(one.lo, one.hi, one.content_hash) for one in here]
    if known and known != [(one.lo, one.hi, one.content_hash) for one in export.segments]:
        raise StorageError(
            f"line '{export.line}' has offsets [{here[0].lo}, {here[-1].hi}) here, the export"
            f" has [{export.lo}, {export.hi}): one line can have one log; import into another home"
        )


def adopt(ledger: Ledger, export: Export, part: LedgerPart) -> bool:
    """Makes hours of an export known: settings, offsets, states before them, all to be computed.

    The watermark stands behind the export: no live batch takes the records, which belong in part
    to hours that are not whole. Its hours stand as not settled, so the next settling or rerun
    computes them.

    Returns:
        False where this was done before.

    Raises:
        StorageError: the ledger knows the line already.
    """
    line = export.line
    with ledger.transaction(line) as connection:
        known = connection.execute(
            sa.select(db.LINES.c.watermark).where(db.LINES.c.line == line)
        ).scalar()
        query = sa.select(db.PARTITIONS.c.hour).where(db.PARTITIONS.c.line == line)
        hours = set(connection.execute(query).scalars())
        if known is not None or hours:
            if known == export.hi and hours == {found.hour for found in part.hours}:
                return False
            raise StorageError(
                f"line '{line}' was computed here up to offset {known or 0}: offsets"
                f" [{export.lo}, {export.hi}) would be taken for records of its own log; import"
                " into another home"
            )
        for table, rows in _rows(export, part, now_ms()):
            if rows:
                connection.execute(sa.insert(table), rows)
        events = (Event(*msgspec.structs.astuple(one)) for one in part.lifecycle)
        add_events(connection, line, events)
    return True


def _rows(
    export: Export, part: LedgerPart, at_ms: int
) -> Iterator[tuple[sa.Table, list[dict[str, object]]]]:
    line = export.line
    yield db.LINES, [{"line": line, "watermark": export.hi}]
    yield (
        db.SETTINGS,
        [
            {"line": line, "version": version, "body": body, "first_used_ms": at_ms}
            for version, body in part.settings.items()
        ],
    )
    yield (
        db.ASSIGNMENTS,
        [
            {"line": line, "hour": found.hour, "version": found.settings, "at_ms": at_ms}
            for found in part.hours
        ],
    )
    yield (
        db.PARTITIONS,
        [
            {
                "line": line,
                "hour": found.hour,
                "version": 0,
                "settings_version": found.settings,
                "settled": False,
                "batch": 0,
                "updated_ms": at_ms,
            }
            for found in part.hours
        ],
    )
    yield (
        db.RANGES,
        [
            {"line": line, "hour": found.hour, "lo": lo, "hi": hi}
            for found in part.hours
            for lo, hi in found.ranges
        ],
    )
    yield (
        db.STATES,
        [
            {
                "line": line,
                "series": state.series,
                "hour": state.hour,
                "blob": state.blob,
                "hash": state.hash,
                "frontier": state.frontier,
            }
            for state in part.states
        ],
    )


def deviations(ledger: Ledger, store: TableStore, export: Export) -> list[Deviation]:
    """Where what stands here is not what stood where the hours were exported.

    Raises:
        StorageError: tables or ledger can not be read.
    """
    found: list[Deviation] = []
    for key, there in export.outcome.items():
        here = outcome(ledger, store, export.line, hour_from_key(key))
        for kind, mine, theirs in (
            ("table", here.tables, there.tables),
            ("state", here.states, there.states),
        ):
            found += [
                Deviation(
                    key,
                    f"{kind} {name}",
                    f"{mine.get(name, 'none')} here, {theirs.get(name, 'none')} there",
                )
                for name in sorted({*mine, *theirs})
                if mine.get(name) != theirs.get(name)
            ]
    return found
