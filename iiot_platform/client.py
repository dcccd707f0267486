"""The computed tables as pandas frames, for notebooks and scripts.

from iiot_platform.client import Client

client = Client("var")
client.tables()
client.table("line1", "signal_anomalies", start="2026-11-22 08:00", sensor_name="oil_pressure")
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final

import duckdb
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from iiot_platform.config.database import normalised
from iiot_platform.core import schema
from iiot_platform.core.clock import hour_of, hour_start_ms, now_ms, to_ms
from iiot_platform.core.errors import AnalysisError, StorageError, nearest
from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.coverage import Lack, covered_share, open_gaps
from iiot_platform.engine.happenings import happened
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.table_store import TableStore

Moment = str | datetime
_NULLABLE: Final = {pa.int64(): "Int64", pa.bool_(): "boolean"}
_LISTINGS: Final = 2


class UnknownNameError(AnalysisError):
    """A line, table or column was asked for that is not there."""

    def __init__(self, what: str, name: str, valid: Iterable[str]) -> None:
        super().__init__(f"no {what} is called '{name}'; {nearest(name, valid)}")


class Client:
    """Reads the tables below one home; any number of clients may read while batches run.

    Args:
        home: the folder of all state (`IIOT_HOME`).
        database: URL of the database that holds the ledger (`IIOT_DATABASE_URL`), where one does.

    Raises:
        StorageError: nothing has been computed there.
        DatabaseUrlError: `database` is not the URL of a PostgreSQL database.
    """

    def __init__(self, home: str | Path | Home = "var", *, database: str | None = None) -> None:
        self._home = home if isinstance(home, Home) else Home(Path(home).expanduser().absolute())
        if database is not None:
            self._home = replace(self._home, database=normalised(database))
        if not Ledger.is_at(self._home):
            raise StorageError(
                f"'{self._home.root}' holds no ledger: nothing has been computed there yet, or"
                " it is another folder; give the one that IIOT_HOME names. A ledger in PostgreSQL"
                " is found with database="
            )
        self._ledger = Ledger.of(self._home)
        self._store = TableStore(self._home)

    def close(self) -> None:
        """Closes the ledger."""
        self._ledger.close()

    def lines(self) -> list[str]:
        """The lines that have anything computed, in alphabetical order."""
        query = sa.select(db.PARTITIONS.c.line).distinct().order_by(db.PARTITIONS.c.line)
        with self._ledger.reading() as connection:
            return list(connection.execute(query).scalars())

    def tables(self, line: str | None = None) -> pd.DataFrame:
        """What there is: one row per line and table with its rows, bytes and first and last time.

        Raises:
            UnknownNameError: there is no such line.
        """
        files = db.FILES.c
        query = (
            sa.select(
                files.line,
                files.table_name.label("table"),
                sa.func.sum(files.rows).label("rows"),
                sa.func.sum(files.bytes).label("bytes"),
                sa.func.min(files.min_ts).label("first"),
                sa.func.max(files.max_ts).label("last"),
            )
            .where(files.dropped_version.is_(None))
            .group_by(files.line, files.table_name)
            .order_by(files.line, files.table_name)
        )
        if line is not None:
            query = query.where(files.line == self._known(line))
        with self._ledger.reading() as connection:
            result = connection.execute(query)
            found = pd.DataFrame(result.all(), columns=list(result.keys()))
        numbers = dict.fromkeys(("rows", "bytes", "first", "last"), "int64")
        found = found.astype({"line": "str", "table": "str", **numbers})
        for name in ("first", "last"):
            found[name] = pd.to_datetime(found[name], unit="ms", utc=True).astype(
                "datetime64[ms, UTC]"
            )
        return found

    def table(
        self,
        line: str,
        table: str,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        last: int | None = None,
        **tags: str | Iterable[str],
    ) -> pd.DataFrame:
        """Rows of a table, in order of time.

        Args:
            line: name of the line.
            table: name of the table, such as `signals`; `tables()` lists them.
            start: first time; text such as `2026-11-22 08:00`, or a datetime. A time without a
                zone is UTC.
            end: time behind the last one.
            last: only the newest rows, at most this many.
            **tags: one value or several that a tag may have, such as `sensor_name="oil_pressure"`
                or `machine_name=["press", "conveyor"]`.

        Returns:
            One row per reading or cycle; `ts` is aware (UTC), whole numbers that may be missing
            are `Int64`. Empty with the table's columns where nothing was found.

        Raises:
            UnknownNameError: there is no such line, table or tag.
            AnalysisError: a time can not be understood.
            StorageError: the tables can not be read.
        """
        if table not in schema.TABLES:
            raise UnknownNameError("table", table, schema.TABLES)
        found = schema.TABLES[table]
        where = [
            *_between(start, end),
            *(_tag_is(found, name, values) for name, values in tags.items()),
        ]
        span = _hours(start, end)
        line = self._known(line)
        rows = self._newest(line, found, span, where, last) if last else None
        if rows is None:
            rows = self._select(line, found, span, where, last)
        return _frame(found, rows)

    def coverage(self, line: str) -> pd.DataFrame:
        """Per hour of a line the share of time that lies in no gap (`covered_share`, 0..1).

        A gap that the source's history has filled is none. What is missing now, because a source
        is away, becomes a gap when it is back.

        Raises:
            UnknownNameError: there is no such line.
            StorageError: the tables can not be read.
        """
        gaps = self.gaps(line)
        now, hours = now_ms(), self._ledger.hours(line)
        return pd.DataFrame(
            {
                "ts": pd.to_datetime([hour_start_ms(hour) for hour in hours], unit="ms", utc=True),
                "covered_share": [covered_share(gaps, hour, now) for hour in hours],
            }
        )

    def gaps(self, line: str, *, start: Moment | None = None) -> list[tuple[int, int]]:
        """The times (Unix ms) that a line's sources could not tell, apart and in order.

        Those that a source's history has filled are left out.

        Args:
            line: name of the line.
            start: gaps that ended before it are left out.

        Raises:
            UnknownNameError: there is no such line.
            StorageError: the tables can not be read.
        """
        rows = self.table(line, schema.GAPS.name, start=start)
        return open_gaps(
            Lack(source, to_ms(begin), to_ms(end), complete)
            for source, begin, end, complete in zip(
                rows["source"],
                rows["begin_ts"].dt.to_pydatetime(),
                rows["end_ts"].dt.to_pydatetime(),
                rows["complete"].fillna(False).astype(bool).tolist(),  # noqa: FBT003 - the value
                strict=True,
            )
        )

    def events(
        self, line: str, *, start: Moment | None = None, end: Moment | None = None
    ) -> pd.DataFrame:
        """What happened to the hours that [start, end) touches: settings, reruns, gaps.

        Raises:
            UnknownNameError: there is no such line.
            StorageError: the tables can not be read.
        """
        hours = _hours(start, end)
        return _frame(schema.EVENTS, happened(self._ledger, self._store, self._known(line), hours))

    def intervals(
        self,
        line: str,
        table: str,
        *,
        every_ms: int,
        start: Moment,
        end: Moment,
        by: Iterable[str] | None = None,
        newest: Iterable[str] = (),
        highest: Iterable[str] = (),
        total: Iterable[str] = (),
    ) -> pd.DataFrame:
        """A table in intervals of equal length, aggregated where its files are read.

        Args:
            line: name of the line.
            table: name of the table.
            every_ms: length of an interval; intervals begin at multiples of it since the epoch.
            start: first time.
            end: time behind the last one.
            by: columns that are told apart; default the tags but the line's.
            newest: columns whose newest value in the interval counts.
            highest: columns whose highest value counts.
            total: columns whose sum counts.

        Returns:
            One row per interval that has rows and per value of `by`, in that order: `at_ms` (its
            start), `newest_ms` (time of its newest row; both Unix ms), `by` and the columns.

        Raises:
            UnknownNameError: there is no such line, table or column.
            StorageError: the tables can not be read.
        """
        if table not in schema.TABLES:
            raise UnknownNameError("table", table, schema.TABLES)
        found = schema.TABLES[table]
        told = [tag for tag in found.names("tag") if tag != schema.LINE.name]
        told = told if by is None else list(by)
        newest, highest, total = list(newest), list(highest), list(total)
        for name in (*told, *newest, *highest, *total):
            if name not in found.arrow.names:
                raise UnknownNameError(f"column of '{table}'", name, found.arrow.names)
        columns = [
            f"epoch_ms(ts) // {int(every_ms)} * {int(every_ms)} AS at_ms",
            *map(_name, told),
            "max(epoch_ms(ts)) AS newest_ms",
            *(f"arg_max({_name(name)}, ts) AS {_name(name)}" for name in newest),
            *(f"max({_name(name)}) AS {_name(name)}" for name in highest),
            *(f"sum({_name(name)})::DOUBLE AS {_name(name)}" for name in total),
        ]
        where = " AND ".join(_between(start, end))
        grouped = ", ".join(["at_ms", *map(_name, told)])
        sql = f"SELECT {', '.join(columns)} FROM {{}} WHERE {where} GROUP BY {grouped}"
        sql += f" ORDER BY {grouped}"
        rows = self._read(self._known(line), found, _hours(start, end), lambda f: _run(sql, f))
        if rows is None:
            named = ("at_ms", *told, "newest_ms", *newest, *highest, *total)
            types = {name: found.column(name).type for name in (*told, *newest, *highest)}
            types |= dict.fromkeys(total, pa.float64())
            rows = pa.schema([(n, types.get(n, pa.int64())) for n in named]).empty_table()
        frame: pd.DataFrame = rows.to_pandas()
        return frame

    def _known(self, line: str) -> str:
        lines = self.lines()
        if line not in lines:
            raise UnknownNameError("line", line, lines)
        return line

    def _newest(
        self, line: str, table: schema.Table, span: range, where: list[str], last: int
    ) -> pa.Table | None:
        """The newest rows from the newest hours that hold enough of them; None: all are needed."""
        hours = [hour for hour in self._ledger.hours(line) if hour in span]
        count = 1
        while count < len(hours):
            newest = range(hours[-count], span.stop)
            rows = self._select(line, table, newest, where, last)
            if len(rows) >= last:
                return rows
            count *= 4
        return None

    def _select(
        self, line: str, table: schema.Table, span: range, where: list[str], last: int | None
    ) -> pa.Table:
        """Rows of the files that count now."""
        rows = self._read(line, table, span, lambda files: _query(table, files, where, last))
        return table.arrow.empty_table() if rows is None else rows

    def _read(
        self,
        line: str,
        table: schema.Table,
        span: range,
        query: Callable[[list[str]], pa.Table],
    ) -> pa.Table | None:
        """What a query of the files that count now gives; None where there is no file.

        A file that no longer counts goes only after a grace period, so a missing one means that
        the list is older than that: it is made once more.
        """
        error: duckdb.Error | None = None
        for _ in range(_LISTINGS):
            paths = self._ledger.files_between(line, table.name, span.start, span.stop)
            if not paths:
                return None
            files = [str(self._store.path(path)) for path in paths]
            try:
                return query(files)
            except duckdb.Error as failed:
                error = failed
        raise StorageError(f"table '{table.name}' of '{line}' can not be read: {error}") from error


@cache
def _database(process: int) -> duckdb.DuckDBPyConnection:
    """What queries of a process share: to open one takes ten times as long as most of them.

    It is a process's own, since threads of a database do not survive a fork.
    """
    del process
    # files that went or were damaged are to be noticed
    return duckdb.connect(config={"enable_external_file_cache": False})


def _run(sql: str, files: list[str]) -> pa.Table:
    """The answer to a query whose `{}` stands for the files."""
    listed = ", ".join(_literal(file) for file in files)
    source = f"read_parquet([{listed}], hive_partitioning = false)"
    with closing(_database(os.getpid()).cursor()) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found: pa.Table = connection.sql(sql.replace("{}", source, 1)).to_arrow_table()
    return found


def _query(table: schema.Table, files: list[str], where: list[str], last: int | None) -> pa.Table:
    names = ", ".join(_name(name) for name in table.arrow.names)
    order = [name for name in ("ts", "offset", "sub") if name in table.arrow.names]
    order += [name for name in table.key if name not in order]
    sql = f"SELECT {names} FROM {{}}"
    if where:
        sql += f" WHERE {' AND '.join(where)}"
    if last is not None:
        sql += f" ORDER BY {', '.join(f'{_name(n)} DESC' for n in order)} LIMIT {int(last)}"
        sql = f"SELECT * FROM ({sql})"
    sql += f" ORDER BY {', '.join(map(_name, order))}"
    return _run(sql, files).cast(table.arrow)


def _frame(table: schema.Table, rows: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = rows.to_pandas(integer_object_nulls=True)
    types: Mapping[str, str] = {
        column.name: _NULLABLE[column.type]
        for column in table.columns
        if column.nullable and column.type in _NULLABLE
    }
    return frame.astype(types)


def _hours(start: Moment | None, end: Moment | None) -> range:
    """The hours that hold times of [start, end)."""
    first = 0 if start is None else hour_of(_ms(start))
    behind = hour_of(now_ms()) + _AHEAD_HOURS if end is None else hour_of(_ms(end) - 1) + 1
    return range(first, max(first, behind))


_AHEAD_HOURS: Final = 24 * 366
"""Further ahead than any row that is accepted."""


def _between(start: Moment | None, end: Moment | None) -> Iterator[str]:
    for moment, operator in ((start, ">="), (end, "<")):
        if moment is not None:
            yield f"ts {operator} make_timestamptz({_ms(moment) * 1_000})"


def _tag_is(table: schema.Table, name: str, values: str | Iterable[str]) -> str:
    if name not in table.names("tag"):
        raise UnknownNameError(f"tag of '{table.name}'", name, table.names("tag"))
    listed = [values] if isinstance(values, str) else list(values)
    return f"{_name(name)} IN ({', '.join(map(_literal, listed))})" if listed else "false"


def _ms(moment: Moment) -> int:
    try:
        stamp = pd.Timestamp(moment)
    except ValueError as error:
        raise AnalysisError(
            f"'{moment}' is no time; write it as '2026-11-22 08:00' or give a datetime"
        ) from error
    if stamp.tzinfo is None:
        stamp = stamp.tz_localize("UTC")
    return to_ms(stamp.to_pydatetime(warn=False))


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
