"""The newest rows that a detector flagged, of all tables of a line."""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import pandas as pd

from iiot_platform.core import schema
from iiot_platform.report.content import Flagged
from iiot_platform.report.sections import milliseconds

NEWEST: Final = 20
_FLAG: Final = "anomaly"
_UNPREFIXED: Final = {schema.VIBRATION_ANOMALIES.name: "vib_accel_rms_total"}


def newest_flagged(frames: Mapping[str, pd.DataFrame]) -> tuple[Flagged, ...]:
    """The newest anomalies of tables (by name), the newest first."""
    found = [
        one
        for name, rows in frames.items()
        for quantity, prefix in _tested(schema.TABLES[name])
        for one in _flagged(name, rows, quantity, prefix)
    ]
    return tuple(sorted(found, key=lambda one: one.ts_ms, reverse=True)[:NEWEST])


def _tested(table: schema.Table) -> Iterator[tuple[str, str]]:
    """The quantities that a table tests, and what the names of their verdicts begin with."""
    for name in table.names("field"):
        if name == _FLAG:
            yield _UNPREFIXED.get(table.name, "value"), ""
        elif name.endswith(f"_{_FLAG}"):
            prefix = name.removesuffix(_FLAG)
            yield prefix.removesuffix("_"), prefix


def _flagged(table: str, rows: pd.DataFrame, quantity: str, prefix: str) -> Iterator[Flagged]:
    chosen = rows.iloc[np.flatnonzero(rows[f"{prefix}{_FLAG}"].to_numpy() > 0)[-NEWEST:]]
    _, machine, *device = schema.TABLES[table].names("tag")
    names = chosen[device].agg(" ".join, axis=1) if len(chosen) else ()
    for ts, where, series, value, mean, score, status, run in zip(
        milliseconds(chosen["ts"]).tolist(),
        chosen[machine],
        names,
        chosen[quantity].tolist(),
        chosen[f"{prefix}model_avg"].tolist(),
        chosen[f"{prefix}z_score"].tolist(),
        chosen[schema.STATUS],
        chosen["run_id"],
        strict=True,
    ):
        yield Flagged(
            ts_ms=ts,
            table=table,
            machine=where,
            series=series,
            quantity=quantity,
            value=value,
            mean=mean,
            z_score=score,
            status=status,
            run=run,
        )
