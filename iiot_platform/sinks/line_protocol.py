"""Line protocol from any declared table, rendered column by column with Arrow's string kernels.

What InfluxDB can not store is left out and counted, never written as something else: a null, NaN
or infinite field is omitted, a row without a single field is dropped, an empty tag is omitted.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iiot_platform.core import schema
from iiot_platform.sinks.columns import Column, declared_columns
from iiot_platform.sinks.refusals import RefusedError

_ESCAPES: Final = str.maketrans({",": r"\,", " ": r"\ ", "=": r"\=", "\n": "%0A", "\r": "%0D"})
_TEXT_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\""})


@dataclass(frozen=True)
class Lines:
    """Rendered rows.

    Attributes:
        text: one line a point, each ending in a newline.
        rows: the row of the rendered table that each line came from.
        dropped: rows left out because none of their fields can be stored.
    """

    text: pa.StringArray
    rows: "np.ndarray[Any, np.dtype[np.int64]]"
    dropped: int

    def __len__(self) -> int:
        return len(self.text)

    def body(self, start: int = 0, stop: int | None = None) -> bytes:
        """The lines of [start, stop) as one request body."""
        ends = self._ends()
        stop = len(self) if stop is None else stop
        data = self.text.buffers()[2]
        if data is None or start >= stop:
            return b""
        body: bytes = data.slice(int(ends[start]), int(ends[stop] - ends[start])).to_pybytes()
        return body

    def requests(self, max_points: int, max_bytes: int) -> Iterator[tuple[int, int]]:
        """Intervals of lines that stay within both limits; a longer single line goes alone."""
        ends = self._ends()
        start = 0
        while start < len(self):
            fit = int(np.searchsorted(ends, ends[start] + max_bytes, side="right")) - 1
            stop = max(start + 1, min(fit, start + max_points, len(self)))
            yield start, stop
            start = stop

    def _ends(self) -> "np.ndarray[Any, np.dtype[np.int32]]":
        buffer: Any = self.text.buffers()[1]
        if buffer is None or not len(self):
            return np.zeros(1, np.int32)
        ends: np.ndarray[Any, np.dtype[np.int32]] = np.frombuffer(buffer, np.int32)
        return ends[self.text.offset :][: len(self) + 1]


def tag_text(value: str) -> str:
    r"""A tag value as it is stored, before escaping.

    Line protocol can hold neither line breaks nor a trailing backslash in a tag: they are
    percent-encoded, `a\` becomes `a%5C`.
    """
    stem = value.rstrip("\\")
    text = stem + "%5C" * (len(value) - len(stem))
    return text.replace("\n", "%0A").replace("\r", "%0D")


def head(table: schema.Table, tags: Mapping[str, str]) -> str:
    """Measurement and tag set of one row."""
    return f"{table.measurement}{''.join(_tag(name, tags[name]) for name in sorted(tags))}"


def render(table: schema.Table, rows: pa.Table) -> Lines:
    """The rows of a table as line protocol, times in milliseconds.

    Args:
        table: the declaration; it must have a measurement.
        rows: Arrow table with at least the declared time, tag, field and provenance columns.

    Raises:
        RefusedError: the table has no measurement, or the rows lack a column or have another type.
    """
    if table.measurement is None:
        raise RefusedError(
            f"table '{table.name}' has no InfluxDB measurement and can not be rendered; "
            f"those that have: {', '.join(t.name for t in schema.measured())}"
        )
    columns = declared_columns(table, rows)
    fields = {name: _field(table.column(name), columns[name]) for name in table.names("field")}
    kept = _rows_with_a_field(rows.num_rows, fields.values())
    if kept is not None:
        columns = {name: column.take(kept) for name, column in columns.items()}
        fields = {name: _taken(column, kept) for name, column in fields.items()}
    fields |= {
        name: _field(table.column(name), columns[name]) for name in table.names("provenance")
    }
    count = rows.num_rows if kept is None else len(kept)
    index = np.arange(count, dtype=np.int64) if kept is None else np.asarray(kept)
    if not count:
        return Lines(pa.array([], pa.string()), index, rows.num_rows)
    parts = [
        _series(table, columns),
        *_field_set(table, fields),
        " ",
        columns["ts"].cast(pa.int64()).cast(pa.string()),
        "\n",
    ]
    text: Any = pc.binary_join_element_wise(*_merged(parts), "")
    return Lines(text, index, rows.num_rows - count)


def _field(column: schema.Column, values: Column) -> Column:
    """The text of each value, without an integer's suffix; null where it can not be stored."""
    if column.type in {schema.FLOAT, schema.INT}:
        if _is_constant(values):
            return _finite(values.slice(0, 1)).cast(pa.string())[0]
        return _finite(values).cast(pa.string())
    if column.type == schema.TEXT:
        return _each_distinct(values, _quoted)
    raise TypeError(f"field '{column.name}': no line protocol for Arrow type {column.type}")


def _finite(values: Column) -> Column:
    """Null in place of NaN and infinity. Arrow casts floats to text that reads back bit for bit."""
    if values.type != schema.FLOAT:
        return values
    finite = pc.is_finite(values)
    if pc.all(finite, min_count=0).as_py():
        return values
    return pc.if_else(finite, values, pa.scalar(None, schema.FLOAT))


def _is_constant(values: Column) -> bool:
    """True where one storable value stands in every row; compares bits, so 0.0 is not -0.0."""
    if values.null_count or not len(values):
        return False
    ends = pc.min_max(values.view(pa.int64()))
    same = bool(ends["min"] == ends["max"])
    return same and not _finite(values.slice(0, 1)).null_count


def _quoted(text: str) -> str:
    return f'"{text.translate(_TEXT_ESCAPES)}"'


def _each_distinct(values: Column, function: Callable[[str], str]) -> Column:
    """Apply a function once for each distinct value; one scalar where there is but one."""
    encoded = values.dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    mapped = pa.array([None if text is None else function(text) for text in texts], pa.string())
    if len(mapped) == 1 and not mapped.null_count and not values.null_count:
        return mapped[0]
    indices: Any = encoded.indices
    return mapped.take(indices)


def _taken(column: Column, kept: Column) -> Column:
    return column if isinstance(column, pa.Scalar) else column.take(kept)


def _rows_with_a_field(count: int, fields: Any) -> Column | None:
    """The rows of which at least one field can be stored; None where all can."""
    empty = np.ones(count, dtype=bool)
    for column in fields:
        if isinstance(column, pa.Scalar) or not column.null_count:
            return None
        empty &= column.is_null().to_numpy(zero_copy_only=False)
    return pa.array(np.flatnonzero(~empty)) if empty.any() else None


def _series(table: schema.Table, columns: dict[str, Column]) -> Column:
    """Measurement and tag set of each row, built once for each distinct combination."""
    codes = np.zeros(len(columns["ts"]), dtype=np.int64)
    tag_sets: list[tuple[str, ...]] = [()]
    for name in sorted(table.names("tag")):  # sorted tags cost the server least
        encoded = columns[name].dictionary_encode()
        texts = [_tag(name, value) for value in [*encoded.dictionary.to_pylist(), None]]
        wide = codes * len(texts) + encoded.indices.fill_null(len(texts) - 1).to_numpy()
        distinct, codes = _compacted(wide, len(tag_sets) * len(texts))
        tag_sets = [(*tag_sets[i // len(texts)], texts[i % len(texts)]) for i in distinct.tolist()]
    heads = [f"{table.measurement}{''.join(tags)} " for tags in tag_sets]
    if len(heads) == 1:
        return pa.scalar(heads[0])
    places: Any = pa.array(codes)
    return pa.array(heads, pa.string()).take(places)


def _tag(name: str, value: str | None) -> str:
    return f",{name}={tag_text(value).translate(_ESCAPES)}" if value else ""


def _compacted(codes: Any, size: int) -> tuple[Any, Any]:
    """The distinct codes below `size`, and each code's place among them."""
    if size > 4 * len(codes) + 1024:
        return np.unique(codes, return_inverse=True)
    present = np.zeros(size, dtype=bool)
    present[codes] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[codes]


def _field_set(table: schema.Table, fields: dict[str, Column]) -> list[Any]:
    """The parts of the field set; a field that has gaps brings its own comma."""
    suffix = {name: "i" if table.column(name).type == schema.INT else "" for name in fields}
    complete = {n: c for n, c in fields.items() if isinstance(c, pa.Scalar) or not c.null_count}
    gappy = {n: c for n, c in fields.items() if n not in complete and c.null_count < len(c)}
    parts: list[Any] = []
    for name, column in complete.items():
        parts += [f"{',' if parts else ''}{name}=", column, suffix[name]]
    comma = "," if parts else ""
    named: list[Any] = [
        pc.binary_join_element_wise(f"{comma}{n}=", column, suffix[n], "")
        for n, column in gappy.items()
    ]
    if complete:
        return [*parts, *(column.fill_null("") for column in named)]
    return [pc.binary_join_element_wise(*named, ",", null_handling="skip")]


def _merged(parts: list[Any]) -> list[Any]:
    """The same parts with neighbouring constants joined, so that fewer are copied per row."""
    merged: list[Any] = []
    for part in parts:
        text = part.as_py() if isinstance(part, pa.Scalar) else part
        if isinstance(text, str) and merged and isinstance(merged[-1], str):
            merged[-1] += text
        else:
            merged.append(text)
    return merged
