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
from iiot_platform.core.clock import hour_of, hour_start_ms, partition_key, to_ms
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


def happened(ledger: Ledger, store: TableStore, line: str, hours: range) -> pa.Table:
    """Rows of `schema.EVENTS`, as it stands now: what happened to some hours, in order of time.

    Of several reruns of an hour the last one; gaps by the hour in which they were written.

    Raises:
        PlatformError: the ledger or a table file can not be read.
    """
    found: dict[tuple[int, str, str], dict[str, Any]] = {}
    parts, batches = db.PARTITIONS.c, db.BATCHES.c
    with ledger.reading() as connection:
        before = _settings_before(connection, line, hours.start)
        computed = connection.execute(
            sa.select(parts.hour, parts.settings_version, batches.run_id)
            .join_from(db.PARTITIONS, db.BATCHES, batches.id == parts.batch)
            .where(parts.line == line, parts.hour >= hours.start, parts.hour < hours.stop)
            .order_by(parts.hour)
        ).all()
        if not computed:
            return schema.EVENTS.arrow.empty_table()
        # from the newest back to the first one before: batches are kept for ever
        earlier = connection.execute(
            sa.select(batches.id)
            .where(batches.line == line, batches.committed_ms < hour_start_ms(computed[0].hour))
            .order_by(batches.id.desc())
            .limit(1)
        ).scalar()
        whole = connection.execute(
            sa.select(db.BATCHES)
            .where(batches.line == line, batches.id > (earlier or 0), batches.kind != LIVE)
            .order_by(batches.id.desc())
            .limit(_PAGE)
        ).all()
    for one in computed:
        if before not in {None, one.settings_version}:
            row = _changed(one.hour, before, one.settings_version)
            found[row["ts"], row["kind"], ""] = row | _made(
                one.hour, one.run_id, one.settings_version
            )
        before = one.settings_version
    for batch in reversed(whole):
        for change in json.loads(batch.body)["hours"]:
            if change["hour"] in hours:
                row = _computed(batch.kind, change)
                found[row["ts"], row["kind"], ""] = row | _made(
                    change["hour"], batch.run_id, change["settings"]
                )
    paths = ledger.files_between(line, schema.GAPS.name, hours.start, hours.stop)
    for gap in store.read(schema.GAPS, paths).sort_by("offset").to_pylist() if paths else ():
        row = _gap(gap)
        hour = hour_of(to_ms(gap["ts"]))
        found[row["ts"], row["kind"], gap["source"]] = row | _made(
            hour, gap["run_id"], gap["config_version"]
        )
    rows = [{schema.LINE.name: line, **found[key]} for key in sorted(found)]
    return pa.Table.from_pylist(rows, schema=schema.EVENTS.arrow)


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
    base = _made(hour, batch.run_id, settings)
    first, live = change["version"] == 1, batch.kind == LIVE
    if before is not None and before != settings and (first or not live):
        yield base | _changed(hour, before, settings)
    elif before is not None and not live:  # what an earlier one told may be so no longer
        start_ms = hour_start_ms(hour)
        gone = _event(schema.SETTINGS_CHANGED, start_ms, start_ms, "")
        yield base | gone | {"run_id": schema.DELETED}
    if not live:
        yield base | _computed(batch.kind, change)
    if change["rows"].get(schema.GAPS.name):
        files = ledger.files(batch.line, schema.GAPS.name, hour)
        for gap in store.read(schema.GAPS, [file.path for file in files]).to_pylist():
            yield base | _gap(gap)


def _made(hour: int, run_id: str, settings: str) -> dict[str, Any]:
    return {"hour": partition_key(hour), "run_id": run_id, "config_version": settings}


def _changed(hour: int, before: str | None, settings: str) -> dict[str, Any]:
    at_ms = hour_start_ms(hour)
    text = f"settings {(before or '')[:8]} until here, {settings[:8]} from here on"
    return _event(schema.SETTINGS_CHANGED, at_ms, at_ms, text)


def _computed(kind: str, change: Mapping[str, Any]) -> dict[str, Any]:
    hour = change["hour"]
    text = f"{kind}: version {change['version']}, {sum(change['rows'].values()):,} rows"
    return _event(kind, hour_start_ms(hour), hour_start_ms(hour + 1), text)


def _gap(gap: Mapping[str, Any]) -> dict[str, Any]:
    text = f"{gap['source']}: {gap['reason']}, {gap['duration_s']:.1f} s"
    if gap["filled"] is not None:
        text += f", {gap['filled']} values filled in"
    return _event(schema.GAP, to_ms(gap["begin_ts"]), to_ms(gap["end_ts"]), text)


def _event(kind: str, start_ms: int, until_ms: int, text: str) -> dict[str, Any]:
    return {"ts": start_ms, "kind": kind, "text": text, "until_ms": until_ms}
