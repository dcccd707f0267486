"""The identity of rows: blind to order, layout and provenance, and to nothing else."""

import math

import numpy as np
import pyarrow as pa
import pytest

from iiot_platform.core import schema
from iiot_platform.engine.canonical import canonical_hash
from tests.reference.table_rows import make_rows

TABLE = schema.ELECTRICAL_READINGS
ROWS = make_rows(TABLE, 20)
HASH = canonical_hash(TABLE, ROWS)


def changed(column: str, row: int, value: object) -> pa.Table:
    values = ROWS.column(column).to_pylist()
    values[row] = value
    place = TABLE.arrow.names.index(column)
    return ROWS.set_column(place, column, pa.array(values, TABLE.arrow.field(column).type))


def test_order_layout_and_provenance_do_not_matter() -> None:
    shuffled = ROWS.take(np.random.default_rng(0).permutation(20))
    assert canonical_hash(TABLE, shuffled) == HASH
    assert canonical_hash(TABLE, pa.concat_tables([ROWS.slice(13), ROWS.slice(0, 13)])) == HASH
    assert canonical_hash(TABLE, changed("run_id", 3, "another run")) == HASH
    assert canonical_hash(TABLE, ROWS.select(ROWS.column_names[::-1])) == HASH


@pytest.mark.parametrize(
    ("column", "value"),
    [("PQF", 1e-300), ("PQF", None), ("PQF", math.nan), ("device_name", ""), ("device_state", 9)],
)
def test_every_value_matters(column: str, value: object) -> None:
    assert canonical_hash(TABLE, changed(column, 7, value)) != HASH


def test_null_nan_zero_and_minus_zero_are_four_things() -> None:
    found = {canonical_hash(TABLE, changed("PQF", 7, x)) for x in (None, math.nan, 0.0, -0.0)}
    assert len(found) == 4


def test_a_row_more_or_twice_matters() -> None:
    assert canonical_hash(TABLE, ROWS.slice(1)) != HASH
    assert canonical_hash(TABLE, pa.concat_tables([ROWS, ROWS.slice(0, 1)])) != HASH
    assert canonical_hash(TABLE, ROWS.slice(0, 0)) != canonical_hash(
        schema.SIGNALS, make_rows(schema.SIGNALS, 0)
    )
