"""What happened to a line's hours, as the ledger knows it: provenance for charts, no table.

Settings that change from an hour on, hours that were computed whole, gaps of the source. A view
of the ledger that is told to the database beside the rows; it takes no part in what hours are
compared by.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import pyarrow as pa
import sqlalchemy as sa

from iiot_platform.core import schema
from iiot_platform.core.clock import hour_start_ms, partition_key
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.swap import upsert
from iiot_platform.engine.table_store import TableStore

LIVE: Final = "live"
_PAGE: Final = 500


class Told(NamedTuple):
    """Rows of `schema.EVENTS`, and the last batch that they are of."""

    rows: pa.Table
    batch: int


def untold(ledger: Ledger, store: TableStore, sink: str, line: str) -> Told | None:
    """What happened since the batch that a sink was last told; None: there is none since.

    Raises:
        PlatformError: the ledger or a table file can not be read.
    """
    told = sa.select(db.TOLD.c.batch).where(db.TOLD.c.sink == sink, db.TOLD.c.line == line)
    with ledger.reading() as connection:
        after = connection.execute(told).scalar() or 0
        batches = connection.execute(
            sa.select(db.BATCHES)
            .where(db.BATCHES.c.line == line, db.BATCHES.c.id > after)
            .order_by(db.BATCHES.c.id)
            .limit(_PAGE)
        ).all()
        changes = [(batch, one) for batch in batches for one in json.loads(batch.body)["hours"]]
        before = {
            hour: _settings_before(connection, line, hour)
            for hour in {change["hour"] for _, change in changes}
        }
    if not batches:
        return None
    rows = [
        {schema.LINE.name: line, **row}
        for batch, change in changes
        for row in _of_hour(ledger, store, batch, change, before[change["hour"]])
    ]
    return Told(pa.Table.from_pylist(rows, schema=schema.EVENTS.arrow), batches[-1].id)


def mark_told(ledger: Ledger, sink: str, line: str, batch: int) -> None:
    """A sink knows what happened up to a batch; 0: it is told everything again."""
    with ledger.transaction(line) as connection:
        upsert(connection, db.TOLD, {"sink": sink, "line": line}, {"batch": batch})


def _settings_before(connection: sa.Connection, line: str, hour: int) -> str | None:
    """The settings of the last hour before one; None where there is none."""
    hours = db.PARTITIONS.c
    query = (
        sa.select(hours.settings_version)
        .where(hours.line == line, hours.hour < hour)
        .order_by(hours.hour.desc())
        .limit(1)
    )
    found: str | None = connection.execute(query).scalar()
    return found


def _of_hour(
    ledger: Ledger,
    store: TableStore,
    batch: sa.Row[Any],
    change: Mapping[str, Any],
    before: str | None,
) -> Iterator[dict[str, Any]]:
    hour, settings = change["hour"], change["settings"]
    start_ms, end_ms = hour_start_ms(hour), hour_start_ms(hour + 1)
    base = {
        "hour": partition_key(hour),
        "run_id": batch.run_id,
        "config_version": settings,
    }
    first, live = change["version"] == 1, batch.kind == LIVE
    if before is not None and before != settings and (first or not live):
        text = f"settings {before[:8]} until here, {settings[:8]} from here on"
        yield base | _event(schema.SETTINGS_CHANGED, start_ms, start_ms, text)
    elif before is not None and not live:  # what an earlier one told may be so no longer
        gone = _event(schema.SETTINGS_CHANGED, start_ms, start_ms, "")
        yield base | gone | {"run_id": schema.DELETED}
    if not live:
        text = f"{batch.kind}: version {change['version']}, {sum(change['rows'].values()):,} rows"
        yield base | _event(batch.kind, start_ms, end_ms, text)
    if change["rows"].get(schema.GAPS.name):
        files = ledger.files(batch.line, schema.GAPS.name, hour)
        for gap in store.read(schema.GAPS, [file.path for file in files]).to_pylist():
            begin_ms, until_ms = (
                round(gap[name].timestamp() * 1_000) for name in ("begin_ts", "end_ts")
            )
            text = f"{gap['source']}: {gap['reason']}, {gap['duration_s']:.1f} s"
            if gap["filled"] is not None:
                text += f", {gap['filled']} values filled in"
            yield base | _event(schema.GAP, begin_ms, until_ms, text)


def _event(kind: str, start_ms: int, until_ms: int, text: str) -> dict[str, Any]:
    return {"ts": start_ms, "kind": kind, "text": text, "until_ms": until_ms}
