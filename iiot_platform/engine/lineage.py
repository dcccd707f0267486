"""Where rows came from: batches by run, settings by version, and the files of an hour for ever."""

import json
from typing import NamedTuple

import sqlalchemy as sa

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.ledger import Ledger


class BatchRecord(NamedTuple):
    """A batch that wrote an hour: offsets [lo, hi) read; times in Unix ms.

    Attributes:
        kind: live, rerun, settle or backfill.
        hour_version: version of the hour that it made.
        settings_version: settings that the hour was computed under.
        kept_below: raw records before this offset were gone: their readings were taken; 0: none.
    """

    run_id: str
    kind: str
    lo: int
    hi: int
    code_version: str
    committed_ms: int
    seconds: float
    hour_version: int
    settings_version: str
    kept_below: int = 0


class FileRecord(NamedTuple):
    """A file that holds or held rows of an hour; `dropped_version` is None where it counts.

    `min_ts` and `max_ts` are event times of its rows, Unix ms.
    """

    path: str
    min_ts: int
    max_ts: int
    added_version: int
    dropped_version: int | None
    dropped_ms: int | None


def batches_of_run(ledger: Ledger, line: str, run_id: str, hour: int) -> list[BatchRecord]:
    """The batches of a run that wrote an hour, oldest first."""
    query = (
        sa.select(db.BATCHES)
        .where(db.BATCHES.c.run_id == run_id, db.BATCHES.c.line == line)
        .order_by(db.BATCHES.c.id)
    )
    with ledger.reading() as connection:
        rows = connection.execute(query).all()
    return [
        BatchRecord(
            row.run_id,
            row.kind,
            row.lo,
            row.hi,
            row.code_version,
            row.committed_ms,
            row.seconds,
            entry["version"],
            entry["settings"],
            entry.get("kept_below", 0),
        )
        for row in rows
        for entry in json.loads(row.body)["hours"]
        if entry["hour"] == hour
    ]


def settings_of(ledger: Ledger, line: str, version: str) -> LineSettings | None:
    """The settings that a version names; None where they were never assigned."""
    query = sa.select(db.SETTINGS.c.body).where(
        db.SETTINGS.c.line == line, db.SETTINGS.c.version == version
    )
    with ledger.reading() as connection:
        body = connection.execute(query).scalar()
    return None if body is None else LineSettings.model_validate_json(body)


def files_of(ledger: Ledger, line: str, table: str, hour: int) -> list[FileRecord]:
    """Every file of a table's hour that the ledger still knows, oldest first."""
    names = FileRecord._fields
    query = (
        sa.select(*(db.FILES.c[name] for name in names))
        .where(db.FILES.c.line == line, db.FILES.c.table_name == table, db.FILES.c.hour == hour)
        .order_by(db.FILES.c.id)
    )
    with ledger.reading() as connection:
        return [FileRecord(*row) for row in connection.execute(query)]


def series_of_line(ledger: Ledger, line: str) -> list[SeriesKey]:
    """Every series of a line that ever had a state."""
    query = sa.select(db.STATES.c.series).where(db.STATES.c.line == line).distinct()
    with ledger.reading() as connection:
        return sorted(SeriesKey.parse(text) for text in connection.execute(query).scalars())


def hours_of_series(ledger: Ledger, line: str, series: SeriesKey, upto: int) -> list[int]:
    """The hours up to one, that one included, in which a series has readings, newest first."""
    query = (
        sa.select(db.STATES.c.hour)
        .where(
            db.STATES.c.line == line, db.STATES.c.series == series.text, db.STATES.c.hour <= upto
        )
        .order_by(db.STATES.c.hour.desc())
    )
    with ledger.reading() as connection:
        return list(connection.execute(query).scalars())
