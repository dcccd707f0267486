"""The columns of rows as they are declared, whichever database they go to."""

from typing import Any

import pyarrow as pa

from iiot_platform.core import schema
from iiot_platform.sinks.refusals import RefusedError

Column = Any
"""An Arrow array, or a scalar that stands for every row; the stubs know no common type."""


def declared_columns(table: schema.Table, rows: pa.Table) -> dict[str, Column]:
    """Time, tags, fields and provenance: contiguous, of their declared types or dictionaries of it.

    Raises:
        RefusedError: the rows lack a column, or have one that can not be cast.
    """
    columns: dict[str, Column] = {}
    for name in table.names("time", "tag", "field", "provenance"):
        if name not in rows.column_names:
            raise RefusedError(
                f"rows of table '{table.name}' lack the column '{name}'; "
                f"got {', '.join(rows.column_names)}"
            )
        column: Any = rows.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        declared = table.column(name).type
        plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if plain != declared:
            try:
                column = column.cast(declared)
            except pa.ArrowInvalid as error:
                raise RefusedError(
                    f"column '{name}' of table '{table.name}' is {column.type}, "
                    f"declared {declared}: {error}"
                ) from error
        columns[name] = column
    return columns
