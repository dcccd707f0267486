"""Table files: immutable Parquet, named by content hash; the ledger says which are current."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iiot_platform.core import schema
from iiot_platform.core.clock import from_ms, hour_start_ms
from iiot_platform.core.errors import StorageError
from iiot_platform.core.names import SeriesKey, path_segment
from iiot_platform.core.paths import Home


@dataclass(frozen=True)
class TableFile:
    """One written file; `path` is relative to the tables folder, times in Unix ms."""

    path: str
    rows: int
    bytes: int
    min_ts: int
    max_ts: int


def with_provenance(
    table: schema.Table, rows: pa.Table, run_id: str, config_version: str
) -> pa.Table:
    """New rows as the table declares them, marked with what computed them.

    Raises:
        StorageError: a column that is never null has nulls.
    """
    for name, value in (("run_id", run_id), ("config_version", config_version)):
        rows = rows.append_column(name, pa.repeat(pa.scalar(value, pa.string()), len(rows)))
    rows = rows.select(table.arrow.names).cast(table.arrow)
    for column in table.columns:
        if not column.nullable and rows.column(column.name).null_count:
            raise StorageError(f"column '{column.name}' of '{table.name}' has nulls: a defect")
    return rows


class TableStore:
    """Writes and reads the table files below one home."""

    def __init__(self, home: Home) -> None:
        self._folder = home.tables

    def write(
        self, line: str, table: schema.Table, hour: int, rows: pa.Table, *, lasting: bool = True
    ) -> TableFile:
        """Writes rows to a new file, durable before it returns.

        Args:
            line: name of the line.
            table: the table.
            hour: the hour.
            rows: as the table declares them; at least one.
            lasting: False where the file is soon merged with its like.

        Raises:
            StorageError: the disk refuses; nothing is left behind.
        """
        moment = from_ms(hour_start_ms(hour))
        folder = Path(path_segment(line), table.name, f"{moment:%Y-%m-%d}", f"{moment:%H}")
        target = self._folder / folder
        try:
            target.mkdir(parents=True, exist_ok=True)
            name = _write_durably(target, rows, "zstd" if lasting else "lz4")
        except OSError as error:
            raise StorageError(f"rows of '{table.name}' can not be written: {error}") from error
        times = pc.min_max(rows.column("ts").cast(pa.int64()))
        return TableFile(
            str(folder / name),
            len(rows),
            (target / name).stat().st_size,
            times["min"].as_py(),
            times["max"].as_py(),
        )

    def read(
        self, table: schema.Table, paths: Sequence[str], columns: Sequence[str] | None = None
    ) -> pa.Table:
        """All rows of some files of one table, whole or some columns of them.

        Raises:
            StorageError: a file is missing or damaged.
        """
        wanted = pa.schema([table.arrow.field(name) for name in columns or table.arrow.names])
        try:
            parts = [_read_file(self._folder / path, table, wanted) for path in paths]
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"a file of '{table.name}' can not be read: {error}") from error
        return pa.concat_tables(parts) if parts else wanted.empty_table()

    def path(self, relative: str) -> Path:
        """The place of a file of this store."""
        return self._folder / relative

    def files(self) -> Iterator[str]:
        """Every file below the tables folder, half-written ones included."""
        for folder, _, names in os.walk(self._folder):
            for name in names:
                yield str((Path(folder) / name).relative_to(self._folder))

    def modified_s(self, path: str) -> float | None:
        """When a file was written (Unix seconds); None where it is gone."""
        try:
            return (self._folder / path).stat().st_mtime
        except FileNotFoundError:
            return None

    def remove_older(self, path: str, before_s: float) -> int:
        """Deletes a file, unless the same content was written anew since; returns its size."""
        place = self._folder / path
        try:
            found = place.stat()
            if found.st_mtime >= before_s:
                return 0
            place.unlink()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StorageError(f"{place} can not be deleted: {error}") from error
        return found.st_size


def _read_file(path: Path, table: schema.Table, wanted: pa.Schema) -> pa.Table:
    """The rows of one file; a reader of one file costs a tenth of a data set.

    What an older file does not say, because the column came later, is null.
    """
    with pq.ParquetFile(path) as file:
        there = set(file.schema_arrow.names)
        columns = [name for name in wanted.names if name in there]
        rows = file.read(columns=columns, use_threads=False)
    for column in table.columns:
        if column.nullable and column.name in wanted.names and column.name not in there:
            rows = rows.append_column(column.name, pa.nulls(len(rows), column.type))
    return rows.select(wanted.names).cast(wanted)


def without_series(table: schema.Table, rows: pa.Table, keys: Iterable[SeriesKey]) -> pa.Table:
    """The rows of every other series."""
    if "series" in table.arrow.names:
        names = pa.array([key.text for key in keys], pa.string())
        return rows.filter(pc.invert(pc.is_in(rows.column("series"), value_set=names)))
    return rows.filter(pc.invert(_is_any(table, rows, keys)))


def of_series(table: schema.Table, rows: pa.Table, keys: Iterable[SeriesKey]) -> pa.Table:
    """The rows of some series."""
    return rows.filter(_is_any(table, rows, keys))


def _is_any(table: schema.Table, rows: pa.Table, keys: Iterable[SeriesKey]) -> pa.Array:
    """Where a row belongs to one of some series; a table of one kind holds no other's."""
    found = pa.array(np.zeros(len(rows), np.bool_))
    for key in keys:
        if table.kind in (None, key.kind):
            found = pc.or_(found, _is_series(table, rows, key))
    return found


def _is_series(table: schema.Table, rows: pa.Table, key: SeriesKey) -> pa.Array:
    """Where a row belongs to a series, by the columns that this table names series by."""
    columns = {"machine_name": key.machine}
    if table is schema.READINGS:
        columns |= {"kind": key.kind, "name": key.name, "operation": key.operation}
    for tag in table.names("tag"):
        if tag in ("sensor_name", "state_name", "device_name"):
            columns[tag] = key.name
        elif tag == "operation_type":
            columns[tag] = key.operation
    match = pa.array(np.ones(len(rows), np.bool_))
    for name, value in columns.items():
        match = pc.and_(match, pc.equal(rows.column(name), value).combine_chunks())
    return match


def _write_durably(folder: Path, rows: pa.Table, compression: str) -> str:
    """Writes a file under the hash of its bytes; returns its name."""
    sink = pa.BufferOutputStream()
    texts = [field.name for field in rows.schema if pa.types.is_string(field.type)]
    # statistics of every column are a quarter of a write's cost; within an hour they leave out
    # nothing that could be skipped
    pq.write_table(
        rows, sink, compression=compression, use_dictionary=texts, write_statistics=["ts"]
    )
    data = sink.getvalue()
    name = f"{hashlib.blake2b(data, digest_size=16).hexdigest()}.parquet"
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).rename(folder / name)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return name
