"""The partition function: pieces with states handed on equal the whole, bit for bit."""

import itertools
import random

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.config.line_settings import KindDefaults, LineSettings
from iiot_platform.core import schema
from iiot_platform.core.capture_log import SEGMENT_SCHEMA, Record
from iiot_platform.core.parameters import DetectorParameters
from iiot_platform.engine.activity import merge, summarise
from iiot_platform.engine.canonical import canonical_hash
from iiot_platform.engine.decode import decode
from iiot_platform.engine.partition import HourRows, compute
from iiot_platform.engine.readings import Readings
from tests.servers.effort import BROAD
from tests.servers.streams import line_records

SMALL = DetectorParameters(window=15, rate_window=8, relearn_after=6, refractory=4)
SETTINGS = LineSettings(
    line="line1",
    defaults=KindDefaults(signal=SMALL, vibration=SMALL, valve=SMALL, electrical=SMALL),
)


def readings_of(records: list[Record]) -> Readings:
    columns = {"offset": list(range(len(records)))} | {
        name: [getattr(record, name) for record in records] for name in Record._fields
    }
    return decode(pa.table(columns, schema=SEGMENT_SCHEMA), SETTINGS).readings


def computed(pieces: list[Readings]) -> tuple[dict[str, str], dict[str, str]]:
    """Hashes of the joined tables and of the last states."""
    states: dict[str, bytes] = {}
    parts: list[HourRows] = []
    for piece in pieces:
        known = {key: states[key.text] for key in piece.keys if key.text in states}
        parts.append(compute(piece, known, SETTINGS))
        states |= {key.text: state.blob for key, state in parts[-1].states.items()}
    names = {name for part in parts for name in part.tables}
    tables = {
        name: pa.concat_tables([part.tables[name] for part in parts if name in part.tables])
        for name in names
    }
    activity = merge([part.activity for part in parts])
    tables["activity"] = activity
    hashes = {name: _hash(name, rows) for name, rows in tables.items()}
    return hashes | {"summary": str(summarise("line1", activity).to_pylist())}, {
        name: blob.hex() for name, blob in states.items()
    }


def _hash(name: str, rows: pa.Table) -> str:
    return canonical_hash(schema.TABLES[name], rows)


@BROAD
@given(
    seed=st.integers(0, 10**6),
    cut_at=st.lists(st.integers(0, 400), max_size=10).map(sorted),
)
def test_pieces_equal_the_whole(seed: int, cut_at: list[int]) -> None:
    noise = random.Random(seed)
    records = [
        record._replace(received_ts=record.received_ts + noise.choice((0, 0, 0, 7_200_000_000)))
        for record in line_records(seed, 400, spread_ms=1_800_000)
    ]
    readings = readings_of(records)
    bounds = [0, *cut_at, len(readings)]
    pieces = [
        readings.take(np.arange(lo, min(hi, len(readings))))
        for lo, hi in itertools.pairwise(bounds)
        if lo < min(hi, len(readings))
    ]
    tables, states = computed([readings])
    assert computed(pieces) == (tables, states)
    assert "late_rows" in tables


@BROAD
@given(seed=st.integers(0, 10**6))
def test_the_order_in_which_readings_stand_does_not_matter(seed: int) -> None:
    readings = readings_of(line_records(seed, 200, spread_ms=1_800_000))
    shuffled = readings.take(np.random.default_rng(seed).permutation(len(readings)))
    assert computed([shuffled]) == computed([readings])


def test_every_table_of_the_kinds_has_rows() -> None:
    tables = compute(readings_of(line_records(1, 300, spread_ms=1_800_000)), {}, SETTINGS).tables
    assert set(tables) == {
        "readings",
        "signals",
        "signal_anomalies",
        "states",
        "vibration_anomalies",
        "valve_anomalies",
        "electrical_readings",
        "electrical_cycles",
    }
    assert tables["signals"].column("line_name").unique().to_pylist() == ["line1"]


def test_readings_survive_the_way_through_their_table() -> None:
    readings = readings_of(line_records(5, 100, spread_ms=1_800_000))
    table = readings.to_table()
    back = Readings.from_table(table).to_table()
    assert back.schema == table.schema
    assert _hash("readings", back) == _hash("readings", table)
