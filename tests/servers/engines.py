"""Engines over capture logs of their own, and what stands in their tables in the end."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.canonical import canonical_hash
from iiot_platform.engine.engine import Engine
from tests.servers.capture_log import write_segments

LINE = "line1"
PLANT = Plant.model_validate(
    {
        "lines": [LINE],
        "defaults": {
            kind: {"window": 20, "rate_window": 10, "relearn_after": 8, "refractory": 5}
            for kind in ("signal", "vibration", "valve", "electrical")
        },
    }
)


def engine_at(
    folder: Path,
    records: Sequence[Record],
    plant: Plant = PLANT,
    *,
    rows: int = 10,
    sinks: tuple[str, ...] = (),
    clock: Callable[[], int] = now_ms,
) -> Engine:
    """An engine with records sealed in segments of a few rows."""
    home = Home(folder)
    write_segments(home, LINE, records, rows=rows)
    return Engine(home, plant, sinks=sinks, clock=clock)


def drain(engine: Engine, sizes: Sequence[int]) -> int:
    """Takes everything in batches of these sizes, over and over; returns how many there were."""
    batches = 0
    while engine.run_batch(LINE, run_id=f"run{batches}", row_cap=sizes[batches % len(sizes)]):
        batches += 1
    return batches


def settle(engine: Engine, line: str = LINE) -> None:
    """Reruns dirty hours, oldest first, until none is left."""
    for _ in range(1_000):
        dirty = engine.dirty_hours(line)
        if not dirty:
            return
        engine.rerun(line, dirty[0], run_id="rerun")
    raise AssertionError("dirty hours never end")


def settle_all(engine: Engine, line: str = LINE) -> None:
    """Computes hours that are not settled or dirty, oldest first; none may have a defect."""
    for _ in range(1_000):
        hours = sorted({*engine.unsettled_hours(line), *engine.dirty_hours(line)})
        if not hours:
            return
        assert not engine.rerun(line, hours[0], run_id="settle", kind="settle").defects
    raise AssertionError("settling never ends")


def files_and_states(engine: Engine, line: str = LINE) -> dict[tuple[str, int], str]:
    """As `contents`, with the tables whose files have no rows."""
    found = {}
    for hour in engine.ledger.hours(line):
        for name, files in engine.ledger.hour_files(line, hour).items():
            table = schema.TABLES[name]
            rows = engine.store.read(table, [file.path for file in files])
            found[name, hour] = canonical_hash(table, rows)
        for key, state in engine.ledger.states_of(line, hour).items():
            found[key.text, hour] = state.hash
    return found


def contents(engine: Engine, line: str = LINE) -> dict[tuple[str, int], str]:
    """A hash of every table of every hour, provenance left out, and of every state."""
    found = {}
    for hour in engine.ledger.hours(line):
        for table in schema.TABLES.values():
            rows = rows_of(engine, table, hour, line)
            if len(rows):
                found[table.name, hour] = canonical_hash(table, rows)
        for key, state in engine.ledger.states_of(line, hour).items():
            found[key.text, hour] = state.hash
    return found


def rows_of(engine: Engine, table: schema.Table, hour: int, line: str = LINE) -> pa.Table:
    """The rows that count."""
    files = engine.ledger.files(line, table.name, hour)
    return engine.store.read(table, [file.path for file in files])
