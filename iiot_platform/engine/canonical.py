"""The identity of rows: a hash that no order of rows, file layout or provenance can change."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iiot_platform.core import schema


def canonical_hash(table: schema.Table, rows: pa.Table) -> str:
    """The hash of a table's rows, bit for bit, sorted, provenance left out (32 hex digits)."""
    names = [name for name in table.arrow.names if name not in table.names("provenance")]
    chosen = rows.select(names)
    order = [(name, "ascending") for name in names if not pa.types.is_list(chosen.field(name).type)]
    ordered = chosen.sort_by(order).combine_chunks()
    digest = hashlib.blake2b(f"{table.name}:{len(ordered)}".encode(), digest_size=16)
    for name in names:
        digest.update(name.encode())
        column = ordered.column(name)
        if len(column):
            _update(digest, column.combine_chunks())
    return digest.hexdigest()


def _update(digest: hashlib.blake2b, column: pa.Array) -> None:
    """Adds a column's values, null apart from every value, independent of buffer layout."""
    kind = column.type
    digest.update(np.packbits(column.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_list(kind):
        digest.update(pc.list_value_length(column).fill_null(0).to_numpy().tobytes())
        _update(digest, column.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        filled = column.cast(pa.binary()).fill_null(b"")
        digest.update(pc.binary_length(filled).to_numpy(zero_copy_only=False).tobytes())
        digest.update(b"".join(filled.to_pylist()))
    elif pa.types.is_boolean(kind):
        digest.update(np.packbits(column.fill_null(False).to_numpy(False)).tobytes())  # noqa: FBT003 - arrow's own positional form
    else:
        plain = column.cast(pa.int64()) if pa.types.is_timestamp(kind) else column
        digest.update(plain.fill_null(0).to_numpy(zero_copy_only=False).tobytes())
