"""The SQL of a declared table, and what of it a database lacks or has otherwise.

Every name comes from the declaration; tags and time are the key, as they are in InfluxDB.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import pyarrow as pa
from psycopg2 import sql

from iiot_platform.core import schema
from iiot_platform.sinks.refusals import RefusedError

TYPES: Final[dict[pa.DataType, str]] = {
    schema.TS: "timestamp with time zone",
    schema.FLOAT: "double precision",
    schema.INT: "bigint",
    schema.TEXT: "text",
}
"""As the catalog of the database spells them."""
_CHUNK: Final = "1 day"


class OtherColumnError(RefusedError):
    """A column of the database is not what the declaration says."""

    def __init__(self, where: str, table: str, column: str, *, found: str, declared: str) -> None:
        super().__init__(
            f"{where}: column '{column}' of table '{table}' is {found}, declared is {declared}; "
            f"alter the column, or drop or rename the table and call 'iiot sink rebuild --table "
            f"{table.rpartition('.')[2]}'"
        )


class SqlTable:
    """One declared table in a schema of a database."""

    def __init__(self, table: schema.Table, db_schema: str) -> None:
        self.table = table
        self.name = f"{db_schema}.{table.name}"
        self._schema = sql.Identifier(db_schema)
        self._target = sql.Identifier(db_schema, table.name)
        self._incoming = sql.Identifier(f"incoming_{table.name}")
        self._columns = table.names("time", "tag", "field", "provenance")
        self._key = sql.SQL(", ").join(map(sql.Identifier, (*table.names("tag"), *_time(table))))

    def create(self, timescale: str | None) -> Iterator[sql.Composable]:
        """Makes schema, table and index, each where it is missing.

        An index by blocks finds an hour of a line in years of rows, and costs nearly nothing.

        Args:
            timescale: schema of the TimescaleDB extension; None where it is not installed.
        """
        # IF NOT EXISTS alone wants the right to make schemas even where there is one
        yield sql.SQL(
            "DO $schema$ BEGIN"
            " IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {}) THEN"
            " CREATE SCHEMA IF NOT EXISTS {}; END IF; END $schema$"
        ).format(sql.Literal(self._schema.strings[0]), self._schema)
        columns = [self._definition(self.table.column(name)) for name in self._columns]
        yield sql.SQL("CREATE TABLE IF NOT EXISTS {} ({}, PRIMARY KEY ({}))").format(
            self._target, sql.SQL(", ").join(columns), self._key
        )
        if timescale is not None:
            yield sql.SQL(
                "SELECT {}.create_hypertable({}::regclass, {}::name,"
                " chunk_time_interval => {}::interval, create_default_indexes => false,"
                " if_not_exists => true)"
            ).format(
                sql.Identifier(timescale),
                sql.Literal(self._target_text()),
                sql.Literal(_time(self.table)[0]),
                sql.Literal(_CHUNK),
            )
        yield sql.SQL(
            "CREATE INDEX IF NOT EXISTS {} ON {} USING brin ({}) WITH (autosummarize = on)"
        ).format(
            sql.Identifier(f"{self.table.name}_time"),
            self._target,
            sql.Identifier(_time(self.table)[0]),
        )
        yield sql.SQL("COMMENT ON TABLE {} IS {}").format(
            self._target, sql.Literal(self.table.description)
        )

    def mend(self, where: str, found: Mapping[str, str]) -> Iterator[sql.Composable]:
        """Adds the columns that a database lacks.

        Args:
            where: the server, for errors.
            found: the columns that it has, with their types.

        Raises:
            OtherColumnError: a column is of another type, or one of the key is missing.
        """
        for name in self._columns:
            column = self.table.column(name)
            declared = TYPES[column.type]
            if name not in found:
                if column.role in {"tag", "time"}:  # a key can not grow under its rows
                    raise OtherColumnError(
                        where, self.name, name, found="missing", declared=f"{declared}, in the key"
                    )
                yield sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {}").format(
                    self._target, self._definition(column)
                )
            elif found[name] != declared:
                raise OtherColumnError(where, self.name, name, found=found[name], declared=declared)

    def copy(self) -> sql.Composable:
        """Takes rows straight into the table; a key that stands already is an error."""
        return self._copy(self._target)

    def merge(self) -> tuple[sql.Composable, sql.Composable, sql.Composable, sql.Composable]:
        """What to run before COPY, the COPY, and after it, so that rows replace what stands."""
        others = [n for n in self._columns if self.table.column(n).role not in {"tag", "time"}]
        assignments = sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in others
        )
        names = sql.SQL(", ").join(map(sql.Identifier, self._columns))
        return (
            sql.SQL(
                "CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA"
            ).format(self._incoming, names, self._target),
            self._copy(self._incoming),
            sql.SQL(
                "INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT ({}) DO UPDATE SET {}"
            ).format(self._target, names, names, self._incoming, self._key, assignments),
            sql.SQL("DROP TABLE {}").format(self._incoming),
        )

    def delete_range(self) -> sql.Composable:
        """Deletes a line's rows of an interval; takes line, begin and end."""
        return sql.SQL("DELETE FROM {} WHERE {} = %s AND {time} >= %s AND {time} < %s").format(
            self._target,
            sql.Identifier(schema.LINE.name),
            time=sql.Identifier(_time(self.table)[0]),
        )

    def delete_row(self) -> sql.Composable:
        """Deletes the row of a key; takes tags and time."""
        marks = sql.SQL(", ").join([sql.Placeholder()] * len(self.table.key))
        return sql.SQL("DELETE FROM {} WHERE ({}) = ({})").format(self._target, self._key, marks)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the key, in its order."""
        return (*self.table.names("tag"), *_time(self.table))

    def _copy(self, into: sql.Composable) -> sql.Composable:
        names = sql.SQL(", ").join(map(sql.Identifier, self._columns))
        return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(into, names)

    def _definition(self, column: schema.Column) -> sql.Composable:
        text = {"time": " NOT NULL", "tag": " NOT NULL DEFAULT ''"}.get(column.role, "")
        return sql.SQL("{} {}").format(
            sql.Identifier(column.name), sql.SQL(TYPES[column.type] + text)
        )

    def _target_text(self) -> str:
        return ".".join(f'"{part}"' for part in self.name.split("."))


def _time(table: schema.Table) -> tuple[str, ...]:
    return tuple(table.names("time"))
