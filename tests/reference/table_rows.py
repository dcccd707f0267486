"""Rows of any declared table, plausible and reproducible."""

from typing import Any

import numpy as np
import pyarrow as pa

from iiot_platform.core import schema


def make_rows(
    table: schema.Table,
    count: int,
    *,
    line: str = "line1",
    start_ms: int = 1_795_338_000_000,
    step_ms: int = 1_000,
    seed: int = 0,
    **columns: Any,
) -> pa.Table:
    """`count` rows `step_ms` apart; columns given by name stand as given."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for column in table.columns:
        values: Any
        if column.name in columns:
            values = columns[column.name]
        elif column.role == "time":
            values = start_ms + step_ms * np.arange(count)
        elif column.name == "line_name":
            values = [line] * count
        elif column.role == "tag":
            values = [f"{column.name}{i % 3}" for i in range(count)]
        elif column.role == "provenance":
            values = [f"{column.name}-0d4f3e0a"] * count
        elif column.type == schema.FLOAT:
            values = rng.normal(20.0, 3.0, count)
        elif column.type == schema.INT:
            values = rng.integers(0, 2, count)
        else:
            values = np.where(rng.random(count) < 0.1, "relearned", "ok").tolist()
        arrays[column.name] = pa.array(values, column.type)
    return pa.table(arrays, schema=table.arrow)
