"""Table files: named by their content, durable, and read back bit for bit."""

from pathlib import Path

import pyarrow as pa
import pytest

from iiot_platform.core import schema
from iiot_platform.core.clock import hour_of
from iiot_platform.core.errors import StorageError
from iiot_platform.core.names import SeriesKey
from iiot_platform.core.paths import Home
from iiot_platform.engine.canonical import canonical_hash
from iiot_platform.engine.table_store import (
    TableStore,
    of_series,
    with_provenance,
    without_series,
)
from tests.reference.table_rows import make_rows

START_MS = 1_795_338_000_000
HOUR = hour_of(START_MS)
TABLES = (schema.SIGNALS, schema.STATES, schema.ELECTRICAL_READINGS, schema.VALVE_ANOMALIES)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_rows_come_back_as_they_were(home: Home, table: schema.Table) -> None:
    store, rows = TableStore(home), make_rows(table, 50)
    file = store.write("line1", table, HOUR, rows)
    assert store.read(table, [file.path]).equals(rows)
    assert (file.rows, file.min_ts, file.max_ts) == (50, START_MS, START_MS + 49_000)
    assert file.bytes == store.path(file.path).stat().st_size
    assert store.read(table, [file.path, file.path]).num_rows == 100


def test_equal_rows_are_one_file_and_others_another(home: Home) -> None:
    store = TableStore(home)
    first, same, other = (
        store.write("line1", schema.SIGNALS, HOUR, make_rows(schema.SIGNALS, 5, seed=seed))
        for seed in (1, 1, 2)
    )
    assert first == same
    assert first.path != other.path
    assert set(store.files()) == {first.path, other.path}


@pytest.mark.parametrize("line", ["..", "../../etc", "a/b", "#", "", "😀", "x" * 300])
def test_a_line_of_any_name_stays_below_the_folder(home: Home, line: str) -> None:
    store = TableStore(home)
    file = store.write(line, schema.SIGNALS, HOUR, make_rows(schema.SIGNALS, 2, line=line))
    assert store.path(file.path).resolve().is_relative_to(home.tables.resolve())
    assert len(Path(file.path).parts) == 5


def test_a_disk_that_refuses_leaves_nothing_behind(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    store = TableStore(home)
    monkeypatch.setattr("iiot_platform.engine.table_store.os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        store.write("line1", schema.SIGNALS, HOUR, make_rows(schema.SIGNALS, 2))
    assert not list(store.files())


def test_a_missing_or_damaged_file_is_an_error_of_storage(home: Home) -> None:
    store = TableStore(home)
    with pytest.raises(StorageError, match="'signals' can not be read"):
        store.read(schema.SIGNALS, ["nowhere.parquet"])
    file = store.write("line1", schema.SIGNALS, HOUR, make_rows(schema.SIGNALS, 2))
    store.path(file.path).write_bytes(b"PAR1 damaged PAR1")
    with pytest.raises(StorageError, match="'signals' can not be read"):
        store.read(schema.SIGNALS, [file.path])


def test_nulls_where_none_may_be_are_a_defect() -> None:
    rows = make_rows(schema.SIGNALS, 2, value=[1.0, None])
    bare = rows.drop_columns(list(schema.SIGNALS.names("provenance")))
    with pytest.raises(StorageError, match="'value' of 'signals' has nulls"):
        with_provenance(schema.SIGNALS, bare, "run", "version")


def test_rows_of_a_series_and_the_rest_make_the_whole() -> None:
    rows = make_rows(
        schema.VALVE_ANOMALIES,
        6,
        machine_name=["m"] * 6,
        sensor_name=["a", "a", "b", "b", "a", "a"],
        operation_type=["ExtendTime", "RetractTime"] * 3,
    )
    key = SeriesKey(schema.VALVE, "m", "a", "ExtendTime")
    own = of_series(schema.VALVE_ANOMALIES, rows, [key])
    rest = without_series(schema.VALVE_ANOMALIES, rows, [key])
    assert (len(own), len(rest)) == (2, 4)
    whole = pa.concat_tables([rest, own])
    assert canonical_hash(schema.VALVE_ANOMALIES, whole) == canonical_hash(
        schema.VALVE_ANOMALIES, rows
    )
    signal = SeriesKey(schema.SIGNAL, "m", "a", "ExtendTime")
    assert without_series(schema.VALVE_ANOMALIES, rows, [signal]).equals(rows)
