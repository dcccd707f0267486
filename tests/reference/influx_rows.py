"""What stands in InfluxDB beside what stands in the tables, row by row."""

from collections.abc import Iterator
from typing import Any

from iiot_platform.core import schema
from iiot_platform.engine.engine import Engine
from tests.servers.influx import Influx

Rows = dict[tuple[object, ...], dict[str, object]]
"""By time and tags, what InfluxDB can store of each row."""


def in_tables(engine: Engine, line: str, table: schema.Table) -> Rows:
    paths = [
        file.path
        for hour in engine.ledger.hours(line)
        for file in engine.ledger.files(line, table.name, hour)
    ]
    rows = engine.store.read(table, paths).select(table.names("time", "tag", "field", "provenance"))
    times = rows.column("ts").cast("int64").to_pylist()
    return keyed(table, (row | {"ts": ts} for row, ts in zip(rows.to_pylist(), times, strict=True)))


def in_influx(server: Influx, line: str, table: schema.Table) -> Rows:
    """Rows that a dashboard would show: those that are not marked as deleted."""
    query = (
        f'SELECT * FROM "{table.measurement}" WHERE "line_name" = \'{line}\''
        f" AND \"{table.mark}\" != '{schema.DELETED}'"
    )
    return keyed(table, (row | {"ts": row.pop("time")} for row in server.query(query)))


def keyed(table: schema.Table, rows: Iterator[dict[str, Any]]) -> Rows:
    found: Rows = {}
    for row in rows:
        key = tuple(row[name] or "" for name in table.key)
        assert key not in found
        found[key] = {name: value for name, value in row.items() if value is not None}
    return found


def compared(server: Influx, engine: Engine, line: str) -> dict[str, Rows]:
    """The tables, after a comparison of every measured one with the database."""
    found = {}
    for table in schema.measured():
        stands = in_tables(engine, line, table)
        told = in_influx(server, line, table)
        assert told.keys() == stands.keys(), table.name
        assert [key for key, row in stands.items() if told[key] != row] == [], table.name
        found[table.name] = stands
    return found
