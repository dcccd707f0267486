"""Which series' rows differ between two versions of a table, bit for bit.

Rows are the same where `canonical_hash` of each series' rows is: sorted, provenance left out. Where
no two rows of a version have the same place, that is found without a hash: rows of the same place
are compared as they stand. Otherwise the hashes decide.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iiot_platform.core import schema
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.activity import NO_SERIES
from iiot_platform.engine.canonical import canonical_hash
from iiot_platform.engine.readings import Bools, Ints, in_one

_NAMES: Final = ("machine_name", "sensor_name", "state_name", "device_name", "name")
_OF_SERIES: Final = ("series", "kind", *_NAMES, "operation", "operation_type")
_WITHIN: Final = ("ts", "offset", "sub")
"""What tells the rows of a series apart."""


def differing_series(table: schema.Table, old: pa.Table, new: pa.Table) -> list[str]:
    """The series whose rows differ, sorted; `NO_SERIES` in a table that has none.

    Args:
        table: the table; provenance may be missing in the rows.
        old: rows in any order.
        new: rows in any order.
    """
    before, after = (_in_bits(rows.select(table.content.names)) for rows in (old, new))
    if before.equals(after):
        return []
    columns = series_columns(table)
    if not columns:
        same = canonical_hash(table, old) == canonical_hash(table, new)
        return [] if same else [NO_SERIES]
    ordered = _in_order(before, after, columns)
    if ordered is None:
        return _by_hash(table, old, new, columns)
    return sorted(_series_text(table, parts) for parts in ordered.differing())


def series_columns(table: schema.Table) -> list[str]:
    """The columns that name a row's series; none where rows belong to the line."""
    named = "series" in table.arrow.names or table.kind is not None or table is schema.READINGS
    return [name for name in _OF_SERIES if named and name in table.arrow.names]


class _Ordered:
    """Two versions series by series, in order of place; no place occurs twice in one.

    Args:
        before: the old rows, floats as bits.
        after: the new rows.
        series: of each version the series of each row, ascending.
        columns: what names a series.
    """

    def __init__(
        self, before: pa.Table, after: pa.Table, series: tuple[Ints, Ints], columns: list[str]
    ) -> None:
        self._versions = (before, after)
        self._series = series
        self._columns = columns

    def differing(self) -> list[dict[str, str]]:
        """The names of each series whose rows differ."""
        before, after = self._versions
        changed = [n for n in before.column_names if not before.column(n).equals(after.column(n))]
        old, new = before.select(changed), after.select(changed)
        codes = np.unique(np.concatenate([np.unique(codes) for codes in self._series]))
        bounds = [
            zip(
                np.searchsorted(series, codes).tolist(),
                np.searchsorted(series, codes, "right").tolist(),
                strict=True,
            )
            for series in self._series
        ]
        found = []
        for (begin, end), (start, stop) in zip(*bounds, strict=True):
            if old.slice(begin, end - begin).equals(new.slice(start, stop - start)):
                continue
            version, row = (after, start) if stop > start else (before, begin)
            found.append({name: version.column(name)[row].as_py() for name in self._columns})
        return found


def _in_order(before: pa.Table, after: pa.Table, columns: list[str]) -> _Ordered | None:
    """Both versions in order; None where two rows of one have the same place."""
    series = _series_codes(pa.concat_tables([after, before]).select(columns))
    versions, codes = [], []
    for rows, code in ((before, series[len(after) :]), (after, series[: len(after)])):
        places = [code, *(_ints(rows, name) for name in _WITHIN if name in rows.column_names)]
        ordered = rows
        if not _ascending(places).all():
            order = np.lexsort(places[::-1])
            places = [place[order] for place in places]
            ordered = rows.take(pa.array(order))
            if not _ascending(places).all():
                return None
        versions.append(ordered)
        codes.append(places[0])
    return _Ordered(versions[0], versions[1], (codes[0], codes[1]), columns)


def _series_codes(names: pa.Table) -> Ints:
    """A number for the series of each row, ascending where each series stands in one piece."""
    code = np.zeros(len(names), np.int64)
    for column in names.columns:
        encoded = in_one(column).dictionary_encode()
        code *= max(len(encoded.dictionary), 1)
        code += encoded.indices.to_numpy(zero_copy_only=False)
    begins = np.flatnonzero(np.diff(code, prepend=-1))
    _, first, which = np.unique(code[begins], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.repeat(rank[which], np.diff(begins, append=len(code)))


def _ascending(places: list[Ints]) -> Bools:
    """Whether each row's place, compared part by part, is behind that of the row before."""
    behind = np.zeros(max(len(places[0]) - 1, 0), np.bool_)
    same = ~behind
    for place in places:
        behind |= same & (place[1:] > place[:-1])
        same &= place[1:] == place[:-1]
    return behind


def _in_bits(rows: pa.Table) -> pa.Table:
    """Floats as the whole numbers of their bits: equal where these are, NaN and -0 included."""
    return pa.table([_bits(in_one(column)) for column in rows.columns], rows.column_names)


def _bits(column: pa.Array) -> pa.Array:
    if pa.types.is_float64(column.type):
        return column.view(pa.int64())
    if pa.types.is_list(column.type):
        return pa.ListArray.from_arrays(
            column.offsets,
            _bits(column.values),
            mask=column.is_null() if column.null_count else None,
        )
    return column


def _ints(rows: pa.Table, name: str) -> Ints:
    ints: Ints = rows.column(name).cast(pa.int64()).to_numpy()
    return ints


def _by_hash(table: schema.Table, old: pa.Table, new: pa.Table, columns: list[str]) -> list[str]:
    before, after = (hash_of_each(table, rows, columns) for rows in (old, new))
    return sorted(n for n in {*before, *after} if before.get(n) != after.get(n))


def hash_of_each(table: schema.Table, rows: pa.Table, columns: list[str]) -> dict[str, str]:
    """The canonical hash of each series' rows."""
    found: dict[str, str] = {}
    for parts in rows.group_by(columns, use_threads=False).aggregate([]).to_pylist():
        match = None
        for name, value in parts.items():
            here = pc.equal(rows.column(name), value)
            match = here if match is None else pc.and_(match, here)
        found[_series_text(table, parts)] = canonical_hash(table, rows.filter(match))
    return found


def _series_text(table: schema.Table, parts: Mapping[str, str]) -> str:
    if "series" in parts:
        return parts["series"]
    kind = parts.get("kind") or table.kind or ""
    machine, name = (parts[column] for column in _NAMES if column in parts)
    operation = parts.get("operation") or parts.get("operation_type") or ""
    return SeriesKey(kind, machine, name, operation).text
