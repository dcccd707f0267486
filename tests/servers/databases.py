"""The databases behind the tables, alike for tests that hold for each of them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psycopg2
import pytest
import sqlalchemy as sa

from iiot_platform.config.settings import (
    INFLUXDB,
    PG_SINK_URL,
    POSTGRESQL,
    PostgresSettings,
    SinkSettings,
)
from iiot_platform.core import schema
from iiot_platform.sinks.influxdb import InfluxSink
from iiot_platform.sinks.opening import open_sink
from iiot_platform.sinks.postgres_session import Session
from iiot_platform.sinks.sink import OpenSink
from tests.servers import influx
from tests.servers.influx import Influx
from tests.servers.postgres import TIMESCALE, PostgresServer, running_postgres

NAMES = (INFLUXDB, POSTGRESQL)


class Database(Protocol):
    """One running database of the tests' own."""

    is_atomic: bool
    """True where a rewrite stands whole or not at all."""

    @property
    def settings(self) -> SinkSettings: ...

    @property
    def environ(self) -> dict[str, str]: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...

    def ensure(self) -> None:
        """Starts it where a test has left it killed."""

    def shown(self, table: schema.Table) -> list[dict[str, Any]]:
        """Rows that a chart would show, `ts` in Unix milliseconds."""

    def die_in_rewrite(self, patch: pytest.MonkeyPatch) -> None:
        """Has the next rewrite kill the server behind its delete."""

    def spoil(self, table: schema.Table, line: str, start_ms: int, end_ms: int) -> None:
        """Deletes rows behind the platform's back."""

    def poison(self, table: schema.Table, column: str, at_ms: int) -> None:
        """Makes a column one of another type, which refuses what is written."""

    def drop(self, table: schema.Table) -> None: ...


def open_hasty(database: Database) -> OpenSink:
    return open_sink(database.settings, retry_for_s=0.3)


@dataclass
class InfluxDatabase:
    """InfluxDB 1.6 behind its front."""

    server: Influx
    is_atomic: bool = False

    @property
    def settings(self) -> SinkSettings:
        return self.server.settings

    @property
    def environ(self) -> dict[str, str]:
        return {"INFLUX_URL": self.server.url, "INFLUX_TOKEN": self.server.token}

    def kill(self) -> None:
        assert self.server.process is not None
        self.server.process.kill()

    def start(self) -> None:
        assert self.server.process is not None
        self.server.process.start()

    def ensure(self) -> None:
        assert self.server.process is not None
        self.server.process.ensure()

    def shown(self, table: schema.Table) -> list[dict[str, Any]]:
        where = f"\"{table.mark}\" != '{schema.DELETED}'"
        rows = self.server.query(f'SELECT * FROM "{table.measurement}" WHERE {where}')
        return [{**row, "ts": row["time"]} for row in rows]

    def die_in_rewrite(self, patch: pytest.MonkeyPatch) -> None:
        delete = InfluxSink.delete_range

        def last_act(*arguments: Any) -> None:
            delete(*arguments)
            self.kill()

        patch.setattr(InfluxSink, "delete_range", last_act)

    def spoil(self, table: schema.Table, line: str, start_ms: int, end_ms: int) -> None:
        with InfluxSink(self.server.settings) as sink:
            sink.delete_range(table, line, start_ms, end_ms)

    def poison(self, table: schema.Table, column: str, at_ms: int) -> None:
        self.drop(table)
        fields = {schema.INT: "1.5", schema.FLOAT: '"text"'}[table.column(column).type]
        assert self.server.process is not None
        body = f"{table.measurement},line_name=other {column}={fields} {at_ms}\n"
        with InfluxSink(self.server.settings) as sink:
            sink._post(body.encode())

    def drop(self, table: schema.Table) -> None:
        self.server.query(f'DROP MEASUREMENT "{table.measurement}"')


@dataclass
class PostgresDatabase:
    """A database of its own in a cluster of the tests'."""

    server: PostgresServer
    is_atomic: bool = True
    settings: PostgresSettings = field(init=False)

    def __post_init__(self) -> None:
        self.settings = PostgresSettings(url=self.server.database())
        if TIMESCALE:
            self.query("CREATE EXTENSION timescaledb")

    @property
    def environ(self) -> dict[str, str]:
        return {PG_SINK_URL: self.settings.url.get_secret_value()}

    def kill(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()

    def ensure(self) -> None:
        self.server.ensure()

    def query(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of a statement, which is committed."""
        url = sa.make_url(self.settings.url.get_secret_value())
        dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with contextlib.closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
            cursor.execute(statement, values or None)
            names = [column.name for column in cursor.description or ()]
            rows = cursor.fetchall() if names else []
            connection.commit()
        return [dict(zip(names, row, strict=True)) for row in rows]

    def name(self, table: schema.Table) -> str:
        return f"{self.settings.db_schema}.{table.name}"

    def shown(self, table: schema.Table) -> list[dict[str, Any]]:
        if self.query("SELECT to_regclass(%s) AS found", self.name(table))[0]["found"] is None:
            return []
        rows = self.query(f"SELECT * FROM {self.name(table)} ORDER BY ts")
        return [{**row, "ts": round(row["ts"].timestamp() * 1_000)} for row in rows]

    def die_in_rewrite(self, patch: pytest.MonkeyPatch) -> None:
        copy = Session.copy

        def last_act(*arguments: Any) -> None:
            copy(*arguments)
            self.kill()

        patch.setattr(Session, "copy", last_act)

    def spoil(self, table: schema.Table, line: str, start_ms: int, end_ms: int) -> None:
        self.query(
            f"DELETE FROM {self.name(table)} WHERE line_name = %s"
            " AND ts >= to_timestamp(%s / 1000.0) AND ts < to_timestamp(%s / 1000.0)",
            *(line, start_ms, end_ms),
        )

    def poison(self, table: schema.Table, column: str, at_ms: int) -> None:
        del at_ms
        self.query(f'ALTER TABLE {self.name(table)} ALTER "{column}" TYPE text')

    def drop(self, table: schema.Table) -> None:
        self.query(f"DROP TABLE {self.name(table)}")


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[Database]:
    """A server of its own; a skipped test where there is none, or none that may be killed."""
    if name == POSTGRESQL:
        with running_postgres() as cluster:
            yield PostgresDatabase(cluster)
        return
    influx.require()
    folder.mkdir(exist_ok=True)
    with influx.server(folder) as server:
        if server.faults is None or server.process is None:
            pytest.skip("only a server that the tests own can be killed and changed")
        yield InfluxDatabase(server)
