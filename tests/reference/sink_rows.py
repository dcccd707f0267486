"""What stands in a database beside what stands in the tables, row by row."""

from collections.abc import Iterable
from typing import Any

from iiot_platform.core import schema
from iiot_platform.engine.engine import Engine
from tests.servers.databases import Database

Rows = dict[tuple[object, ...], dict[str, object]]
"""By time and tags, what a database can store of each row."""


def in_tables(engine: Engine, line: str, table: schema.Table) -> Rows:
    paths = [
        file.path
        for hour in engine.ledger.hours(line)
        for file in engine.ledger.files(line, table.name, hour)
    ]
    rows = engine.store.read(table, paths).select(table.names("time", "tag", "field", "provenance"))
    times = rows.column("ts").cast("int64").to_pylist()
    return keyed(table, (row | {"ts": ts} for row, ts in zip(rows.to_pylist(), times, strict=True)))


def in_database(database: Database, line: str, table: schema.Table) -> Rows:
    shown = (row for row in database.shown(table) if row[schema.LINE.name] == line)
    names = table.names("time", "tag", "field", "provenance")
    return keyed(table, ({name: row.get(name) for name in names} for row in shown))


def keyed(table: schema.Table, rows: Iterable[dict[str, Any]]) -> Rows:
    found: Rows = {}
    for row in rows:
        key = tuple(row[name] or "" for name in table.key)
        assert key not in found
        found[key] = {name: value for name, value in row.items() if value is not None}
    return found


def compared(database: Database, engine: Engine, line: str) -> dict[str, Rows]:
    """The tables, after a comparison of every measured one with the database."""
    found = {}
    for table in schema.measured():
        stands = in_tables(engine, line, table)
        told = in_database(database, line, table)
        assert told.keys() == stands.keys(), table.name
        assert [key for key, row in stands.items() if told[key] != row] == [], table.name
        found[table.name] = stands
    return found
