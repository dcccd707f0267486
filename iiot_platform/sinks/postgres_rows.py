"""Rows as PostgreSQL takes them: CSV for COPY, rendered from Arrow in columns.

Nothing is left out: null is NULL, NaN and infinity are themselves. A tag that is null is empty, as
both are one series elsewhere.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from iiot_platform.core import schema
from iiot_platform.sinks.columns import declared_columns

Marks = np.ndarray[tuple[int], np.dtype[np.bool_]]
_CSV = csv.WriteOptions(include_header=False, quoting_style="needed", batch_size=20_000)
"""Text is quoted where there is any, so that NULL (unquoted) is not the empty text."""


def prepared(table: schema.Table, rows: pa.Table) -> pa.Table:
    """The declared columns of rows, in their order, tags without nulls.

    Raises:
        RefusedError: the rows lack a column, or have one of another type.
    """
    columns = {}
    for name, values in declared_columns(table, rows).items():
        column = values.cast(table.column(name).type)  # dictionaries become plain
        columns[name] = column.fill_null("") if table.column(name).role == "tag" else column
    return pa.table(columns)


def as_csv(rows: pa.Table) -> pa.Buffer:
    """Rows as `COPY … FROM STDIN (FORMAT csv)` reads them."""
    sink = pa.BufferOutputStream()
    csv.write_csv(rows, sink, _CSV)
    return sink.getvalue()


def last_of_each(table: schema.Table, rows: pa.Table) -> pa.Table:
    """The last row of each time and tags, in order: two of one key can not be merged at once."""
    numbered = rows.append_column("row", pa.array(np.arange(rows.num_rows)))
    last = numbered.group_by(list(table.key)).aggregate([("row", "max")]).column("row_max")
    return rows if len(last) == rows.num_rows else rows.take(pa.array(np.sort(last.to_numpy())))


def marked(table: schema.Table, rows: pa.Table) -> Marks:
    """Which rows say that they are gone, for databases that can not delete."""
    is_marked: Marks = pc.is_in(rows.column(table.mark), pa.array([schema.DELETED])).to_numpy()
    return is_marked
