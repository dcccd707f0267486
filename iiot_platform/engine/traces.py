"""What a detector said about one quantity of one series, row by row, taken out of a table."""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from iiot_platform.core import schema
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.readings import Bools, Floats, Ints

_VERDICT: Final = "anomaly"
_NAME_TAGS: Final = ("sensor_name", "state_name", "device_name")
_VALUES: Final = {schema.VIBRATION_ANOMALIES.name: "vib_accel_rms_total"}
"""What a table's detector fields without a prefix test, where it is not `value`."""


class TestedQuantity(NamedTuple):
    """One tested quantity: a series, its table, and the column of the value."""

    table: str
    series: SeriesKey
    column: str

    @property
    def label(self) -> str:
        """As people read it, for example `press/oil_pressure` or `press/v1/ExtendTime`."""
        parts = [self.series.machine, self.series.name, self.series.operation]
        name = "/".join(part for part in parts if part)
        return name if self.column == "value" else f"{name} {self.column}"


class Trace(NamedTuple):
    """Values and verdicts in order of time, one row per event time (Unix ms)."""

    ts: Ints
    value: Floats
    anomaly: Bools
    model_avg: Floats
    model_std: Floats
    z_score: Floats
    z_score_thresh: Floats

    @property
    def learning(self) -> Bools:
        """Where there was no model yet to test against."""
        tested: Bools = self.z_score_thresh == 0
        return tested


def tested_columns(table: schema.Table) -> dict[str, str]:
    """The tested value columns of a table, and the prefix of each one's detector fields."""
    prefixes = [
        name.removesuffix(_VERDICT) for name in table.names("field") if name.endswith(_VERDICT)
    ]
    plain = _VALUES.get(table.name, "value")
    return {prefix.removesuffix("_") or plain: prefix for prefix in prefixes}


TESTED_TABLES: Final = tuple(table for table in schema.TABLES.values() if tested_columns(table))


def series_of(table: schema.Table, tags: dict[str, str]) -> SeriesKey:
    """The series that the tags of a row name."""
    name = next(tags[tag] for tag in _NAME_TAGS if tag in tags)
    return SeriesKey(table.kind or "", tags["machine_name"], name, tags.get("operation_type", ""))


def traces(table: schema.Table, rows: pa.Table) -> dict[TestedQuantity, Trace]:
    """Every tested quantity of a table's rows, in whatever order they stand."""
    if not len(rows):
        return {}
    tags = [tag for tag in table.names("tag") if tag != schema.LINE.name]
    encoded = [rows.column(tag).combine_chunks().dictionary_encode() for tag in tags]
    codes = [column.indices.to_numpy(zero_copy_only=False) for column in encoded]
    ts = _numbers(rows, "ts", pa.int64())
    order = np.lexsort((ts, *codes))
    changed = np.zeros(len(order), np.bool_)
    changed[0] = True
    for code in codes:
        changed[1:] |= np.diff(code[order]) != 0
    starts = np.flatnonzero(changed).tolist()
    columns = {
        column: [
            _numbers(rows, name, pa.float64())[order]
            for name in (column, *(prefix + field for field in Trace._fields[2:]))
        ]
        for column, prefix in tested_columns(table).items()
    }
    ts = ts[order]
    found: dict[TestedQuantity, Trace] = {}
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        names = {
            tag: str(column.dictionary[int(code[order[start]])])
            for tag, column, code in zip(tags, encoded, codes, strict=True)
        }
        series = series_of(table, names)
        for column, (value, anomaly, *model) in columns.items():
            found[TestedQuantity(table.name, series, column)] = Trace(
                ts[start:stop],
                value[start:stop],
                anomaly[start:stop] == 1,
                *(part[start:stop] for part in model),
            )
    return found


def _numbers(rows: pa.Table, name: str, kind: pa.DataType) -> npt.NDArray[Any]:
    column = rows.column(name).cast(kind).combine_chunks()
    numbers: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return numbers
