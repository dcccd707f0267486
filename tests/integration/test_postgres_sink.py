"""What is PostgreSQL's alone: types and keys, tables that grow, transactions, what it refuses."""

import math
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg2
import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from iiot_platform.config.settings import PostgresSettings
from iiot_platform.core import schema
from iiot_platform.core.errors import SinkError
from iiot_platform.sinks import postgresql
from iiot_platform.sinks.postgresql import PostgresSink
from iiot_platform.sinks.refusals import RefusedError, RefusedRowsError
from iiot_platform.sinks.sink import Written
from tests.reference.table_rows import make_rows
from tests.servers.databases import PostgresDatabase
from tests.servers.postgres import PASSWORD, TIMESCALE, PostgresServer

START_MS = 1_795_338_000_000
NASTY = [
    *("plain", "a,b", "a\tb", 'a"b', '"', '""', "a\\", "\\.", "\n\\.\n", "\\N", "line\nbreak\r\n"),
    *("🏭 ü", "it's", "NULL", "null", " lead", "%s", "{}", ""),
]


@pytest.fixture
def database(postgres: PostgresServer) -> PostgresDatabase:
    return PostgresDatabase(postgres)


@pytest.fixture
def sink(database: PostgresDatabase) -> Iterator[PostgresSink]:
    with PostgresSink(database.settings) as ready:
        yield ready


def values(database: PostgresDatabase, table: schema.Table, column: str = "value") -> list[Any]:
    return [row[column] for row in database.shown(table)]


def test_texts_and_numbers_stand_as_they_are(
    database: PostgresDatabase, sink: PostgresSink
) -> None:
    numbers = [math.nan, math.inf, -math.inf, None, 5e-324, 1e300, -0.0, 0.1 + 0.2]
    numbers += [float(i) / 3 for i in range(len(NASTY) - len(numbers))]
    rows = make_rows(
        schema.SIGNALS, len(NASTY), sensor_name=NASTY, run_id=NASTY[::-1], value=numbers
    )
    assert sink.write(schema.SIGNALS, rows) == Written(len(NASTY), 0)
    found = database.shown(schema.SIGNALS)
    assert [row["sensor_name"] for row in found] == NASTY
    assert [row["run_id"] for row in found] == NASTY[::-1]
    assert [repr(row["value"]) for row in found] == [repr(number) for number in numbers]


def test_every_table_has_its_key_its_types_and_its_index(
    database: PostgresDatabase, sink: PostgresSink
) -> None:
    for table in (*schema.measured(), schema.EVENTS):
        sink.write(table, make_rows(table, 1))
        keys = database.query(
            "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid"
            " AND a.attnum = ANY (i.indkey) WHERE i.indisprimary AND i.indrelid = %s::regclass",
            database.name(table),
        )
        assert {row["attname"] for row in keys} == set(table.key)
        about = database.query("SELECT obj_description(%s::regclass) AS said", database.name(table))
        assert about == [{"said": table.description}]


def test_a_row_that_can_not_be_stored_is_named_and_the_others_are(
    database: PostgresDatabase, sink: PostgresSink
) -> None:
    sink.write(schema.SIGNALS, make_rows(schema.SIGNALS, 10))  # some keys stand already
    names = ["ok"] * 6_000
    names[4_321], names[5_000] = "nul\0", "".join(chr(0x4E00 + i * 7 % 9_000) for i in range(3_000))
    rows = make_rows(schema.SIGNALS, 6_000, sensor_name=names)
    with pytest.raises(RefusedRowsError, match=r"2 of 6000 .*'signals'.*row 4321") as refused:
        sink.write(schema.SIGNALS, rows)
    assert (refused.value.row, refused.value.points) == (4_321, 2)
    assert "0x00" in refused.value.reason
    assert "nul" in refused.value.line
    assert values(database, schema.SIGNALS, "sensor_name").count("ok") == 5_998


def test_the_search_for_refused_rows_is_bounded(
    database: PostgresDatabase, sink: PostgresSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []
    attempt = postgresql._attempt
    monkeypatch.setattr(
        postgresql,
        "_attempt",
        lambda *of: attempts.append(of) or attempt(*of),  # type: ignore[func-returns-value]  # None is false
    )
    rows = make_rows(schema.SIGNALS, 8_192, sensor_name=["ok"] * 8_000 + ["\0"] * 192)
    with pytest.raises(RefusedRowsError) as refused:
        sink.write(schema.SIGNALS, rows)
    assert len(attempts) < 60
    stored = len(values(database, schema.SIGNALS))
    assert stored + refused.value.points == 8_192
    assert stored >= 4_096


def test_what_is_refused_in_a_rewrite_leaves_the_rest_of_it(
    database: PostgresDatabase, sink: PostgresSink
) -> None:
    sink.write(schema.SIGNALS, make_rows(schema.SIGNALS, 9, seed=1))
    rows = make_rows(schema.SIGNALS, 4, seed=2, sensor_name=["a", "b\0", "c", "d"])
    with pytest.raises(RefusedRowsError, match="row 1"):
        sink.rewrite(schema.SIGNALS, "line1", START_MS, START_MS + 8_000, rows)
    assert values(database, schema.SIGNALS, "sensor_name") == ["a", "c", "d", "sensor_name2"]


def test_a_column_that_is_declared_later_is_added(
    database: PostgresDatabase, sink: PostgresSink
) -> None:
    younger = tuple(c for c in schema.SIGNALS.columns if c.name != "config_version")
    old = replace(schema.SIGNALS, columns=younger)
    sink.write(old, make_rows(old, 2))
    sink.write(schema.SIGNALS, make_rows(schema.SIGNALS, 1, start_ms=START_MS + 60_000))
    version = "config_version-0d4f3e0a"
    assert values(database, schema.SIGNALS, "config_version") == [None, None, version]


@pytest.mark.parametrize(
    ("column", "change", "words"),
    [
        ("value", 'ALTER "value" TYPE text', "is text, declared is double precision"),
        ("sensor_name", "DROP sensor_name", "is missing, declared is text, in the key"),
    ],
)
def test_a_column_of_another_type_is_an_error_that_names_it(
    database: PostgresDatabase, sink: PostgresSink, column: str, change: str, words: str
) -> None:
    rows = make_rows(schema.SIGNALS, 1)
    sink.write(schema.SIGNALS, rows)
    database.query(f"ALTER TABLE iiot_tables.signals {change}")
    with (
        PostgresSink(database.settings) as other,
        pytest.raises(RefusedError, match=f"'{column}' of table 'iiot_tables.signals' {words}"),
    ):
        other.write(schema.SIGNALS, rows)


def test_many_that_make_the_tables_at_once_do_not_disturb_each_other(
    database: PostgresDatabase,
) -> None:
    failed: list[BaseException] = []

    def write(line: str) -> None:
        try:
            with PostgresSink(database.settings) as sink:
                for table in schema.measured():
                    sink.write(table, make_rows(table, 3, line=line))
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=write, args=(f"line{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert all(len(database.shown(table)) == 12 for table in schema.measured())


def test_no_reader_sees_half_of_a_rewrite(database: PostgresDatabase, sink: PostgresSink) -> None:
    sink.write(schema.SIGNALS, make_rows(schema.SIGNALS, 500))
    seen: set[int] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(len(values(database, schema.SIGNALS)))

    reader = threading.Thread(target=read)
    reader.start()
    for seed in range(10):
        rows = make_rows(schema.SIGNALS, 500, seed=seed)
        sink.rewrite(schema.SIGNALS, "line1", START_MS, START_MS + 500_000, rows)
    over.set()
    reader.join()
    assert seen == {500}


def test_a_server_that_does_not_go_on_costs_a_bounded_time(database: PostgresDatabase) -> None:
    rows = make_rows(schema.SIGNALS, 1)
    with PostgresSink(database.settings) as sink:
        sink.write(schema.SIGNALS, rows)
    dsn = database.settings.url.get_secret_value().replace("+psycopg2", "")
    with closing(psycopg2.connect(dsn)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE iiot_tables.signals")
        with (
            PostgresSink(database.settings, timeout_s=0.5) as hasty,
            pytest.raises(SinkError, match=r"does not answer within 0\.5 s"),
        ):
            hasty.write(schema.SIGNALS, rows)
        other.rollback()
        with PostgresSink(database.settings) as sink:
            assert sink.write(schema.SIGNALS, rows).points == 1


def test_an_address_that_takes_connections_and_says_nothing_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql+psycopg2://me:{PASSWORD}@127.0.0.1:{mute.getsockname()[1]}/x?connect_timeout=2"
        with (
            PostgresSink(PostgresSettings(url=SecretStr(url))) as sink,
            pytest.raises(SinkError, match="does not answer") as error,
        ):
            sink.server()
    assert PASSWORD not in str(error.value)


def test_a_user_who_may_not_make_tables_is_told_so_and_can_be_given_them(
    database: PostgresDatabase, sink: PostgresSink
) -> None:
    database.query("CREATE ROLE writer LOGIN PASSWORD 'geheim'")
    url = sa.make_url(database.settings.url.get_secret_value()).set(username="writer")
    poorer = PostgresSettings(url=SecretStr(url.render_as_string(hide_password=False)))
    rows = make_rows(schema.SIGNALS, 2)
    try:
        with PostgresSink(poorer) as poor:
            with pytest.raises(SinkError, match="let the user of IIOT_PG_SINK_URL create") as error:
                poor.write(schema.SIGNALS, rows)
            assert not isinstance(error.value, RefusedError)  # it stays in the outbox
            sink.write(schema.SIGNALS, rows.slice(0, 0))
            database.query("GRANT USAGE ON SCHEMA iiot_tables TO writer")
            database.query(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA iiot_tables TO writer"
            )
            assert poor.write(schema.SIGNALS, rows).points == 2
    finally:
        database.query("DROP OWNED BY writer")
        database.query("DROP ROLE writer")


def test_a_schema_of_another_name_is_made(database: PostgresDatabase) -> None:
    database.settings = replace(database.settings, db_schema="plant_7")
    with PostgresSink(database.settings) as sink:
        sink.write(schema.SIGNALS, make_rows(schema.SIGNALS, 2))
        assert sink.server().product == "PostgreSQL"
        assert sink.server().version.partition(".")[0].isdigit()
    assert len(database.shown(schema.SIGNALS)) == 2


@pytest.mark.skipif(not TIMESCALE, reason="IIOT_TEST_TIMESCALEDB is not 1")
def test_hypertables_are_written_and_rewritten_compressed_or_not(
    database: PostgresDatabase, sink: PostgresSink
) -> None:
    rows = make_rows(schema.SIGNALS, 48, step_ms=3_600_000)
    sink.write(schema.SIGNALS, rows)
    chunks = "SELECT is_compressed FROM timescaledb_information.chunks"
    assert database.query(chunks) == [{"is_compressed": False}] * 3
    database.query(
        "ALTER TABLE iiot_tables.signals SET (timescaledb.compress,"
        " timescaledb.compress_segmentby = 'line_name, sensor_name')"
    )
    database.query("SELECT compress_chunk(c) FROM show_chunks('iiot_tables.signals') c")
    assert database.query(chunks) == [{"is_compressed": True}] * 3
    again = rows.slice(0, 2)
    sink.rewrite(schema.SIGNALS, "line1", START_MS, START_MS + 6 * 3_600_000, again)
    sink.write(schema.SIGNALS, rows.slice(46))
    assert len(database.shown(schema.SIGNALS)) == 44


@pytest.mark.skipif(TIMESCALE, reason="the extension itself is there")
def test_a_new_table_becomes_a_hypertable_where_timescaledb_is(
    database: PostgresDatabase,
) -> None:
    """A stand-in with the documented parameters of TimescaleDB 2 notes what it is asked."""
    database.query(
        "SET allow_system_table_mods = on; CREATE SCHEMA ts_functions;"
        " INSERT INTO pg_extension VALUES (99999, 'timescaledb', 10,"
        " 'ts_functions'::regnamespace, false, '2.17.2', NULL, NULL);"
        " CREATE TABLE ts_functions.asked (relation regclass, time_column name, chunk interval);"
        " CREATE FUNCTION ts_functions.create_hypertable(relation regclass, time_column_name name,"
        " partitioning_column name = NULL, number_partitions integer = NULL,"
        " associated_schema_name name = NULL, associated_table_prefix name = NULL,"
        " chunk_time_interval anyelement = NULL::bigint, create_default_indexes boolean = true,"
        " if_not_exists boolean = false) RETURNS text LANGUAGE sql AS"
        " $$ INSERT INTO ts_functions.asked VALUES ($1, $2, $7::text::interval) RETURNING 'made' $$"
    )
    with PostgresSink(database.settings) as sink:
        for _ in range(2):
            sink.write(schema.SIGNALS, make_rows(schema.SIGNALS, 2))
        assert sink.server().version.endswith("with TimescaleDB 2.17.2")
    asked = database.query(
        "SELECT relation::text, time_column, chunk::text FROM ts_functions.asked"
    )
    assert asked == [{"relation": "iiot_tables.signals", "time_column": "ts", "chunk": "1 day"}]


def test_an_hour_in_years_of_rows_is_found_by_its_index(
    database: PostgresDatabase, sink: PostgresSink
) -> None:
    rows = make_rows(schema.SIGNALS, 60_000, step_ms=600_000)
    sink.write(schema.SIGNALS, rows)
    database.query("SELECT brin_summarize_new_values('iiot_tables.signals_time')")
    database.query("ANALYZE iiot_tables.signals")
    plan = database.query(
        "EXPLAIN DELETE FROM iiot_tables.signals WHERE line_name = 'line1'"
        " AND ts >= to_timestamp(1795338000) AND ts < to_timestamp(1795341600)"
    )
    scans = [row["QUERY PLAN"] for row in plan if " Scan " in row["QUERY PLAN"]]
    if TIMESCALE:  # a chunk of a day is small enough to be read whole
        assert sum("_chunk" in scan for scan in scans) == 1
    else:
        assert any("signals_time" in scan for scan in scans)


def test_rows_with_dictionaries_and_chunks_are_taken(
    database: PostgresDatabase, sink: PostgresSink
) -> None:
    rows = make_rows(schema.SIGNALS, 4)
    place = rows.column_names.index("sensor_name")
    coded = rows.set_column(place, "sensor_name", rows.column("sensor_name").dictionary_encode())
    sink.write(schema.SIGNALS, pa.concat_tables([coded.slice(0, 1), coded.slice(1)]))
    assert values(database, schema.SIGNALS, "sensor_name") == rows.column(place).to_pylist()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6),
            st.none() | st.floats(),
            st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6),
        ),
        max_size=12,
    )
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_in_any_order_end_as_the_last_of_each_key(
    database: PostgresDatabase,
    sink: PostgresSink,
    written: list[tuple[int, str | None, float | None, str | None]],
) -> None:
    times, names, numbers, runs = zip(*written, strict=True) if written else ((),) * 4
    rows = make_rows(
        schema.SIGNALS,
        len(written),
        ts=[START_MS + at for at in times],
        machine_name=["m"] * len(written),
        sensor_name=list(names),
        value=list(numbers),
        run_id=list(runs),
    )
    end_ms = START_MS + 10
    sink.rewrite(schema.SIGNALS, "line1", START_MS, end_ms, rows.slice(0, len(written) // 2))
    sink.write(schema.SIGNALS, rows.slice(len(written) // 2))
    last = {(START_MS + at, name or ""): (repr(x), run) for at, name, x, run in written}
    found = {
        (row["ts"], row["sensor_name"]): (repr(row["value"]), row["run_id"])
        for row in database.shown(schema.SIGNALS)
    }
    assert found == last
    sink.rewrite(schema.SIGNALS, "line1", START_MS, end_ms, rows.slice(0, 0))
