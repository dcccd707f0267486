"""What a batch and a rerun ask of the ledger is found by its place, however long the history."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from iiot_platform.config.plant import Plant
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from tests.servers.capture_log import write_segments
from tests.servers.sparkplug_feed import feed
from tests.servers.streams import BASE_MS, HOUR_MS, line_records

LINE = "line1"
GROWS = re.compile(
    r"SEARCH (states|here|earlier|files|ranges|assignments|batches|partitions)\b.*\(line=\?\)$"
    r"|SEARCH lifecycle\b.*\(line=\?( AND node=\?)?\)$"
)
"""A search through all that a line has in a table with rows of every hour."""
NEWEST = re.compile(r"SELECT max\((\w+)\.id\) AS max_1\s+FROM \1\s+WHERE \1\.line = \?\s*$")
"""One row is read of it: SQLite goes to the end of the index, though its plan does not say so."""

NAMES = re.compile(r"SCAN asked\b")
"""The names that are asked for, one after the other."""


@contextmanager
def statements(asked: dict[str, Any]) -> Iterator[None]:
    """Notes every statement with one set of its parameters."""

    def note(*event: Any) -> None:
        _, _, statement, parameters, _, many = event
        if many or isinstance(parameters, list):
            parameters = parameters[0]
        asked[statement] = parameters

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def test_nothing_is_looked_for_through_the_whole_history(home: Home) -> None:
    records = [*line_records(1, 600, spread_ms=3 * HOUR_MS), *feed(1, 200)]
    write_segments(home, LINE, records, rows=100)
    nodes = {"nodes": [{"group": "G"}]}
    engine = Engine(home, Plant.model_validate({"lines": [{"name": LINE, "sparkplug": nodes}]}))
    asked: dict[str, Any] = {}
    with statements(asked):
        while engine.run_batch(LINE, run_id="live", row_cap=100):
            pass
        engine.rerun(LINE, hour_of(BASE_MS) + 1, run_id="again")
    plans = 0
    with engine.ledger.transaction() as connection:
        for statement, parameters in asked.items():
            if not statement.startswith(("SELECT", "UPDATE", "DELETE")):
                continue
            found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            for step in (str(row[3]) for row in found):
                plans += 1
                assert not step.startswith("SCAN") or NAMES.match(step), statement
                assert not GROWS.match(step) or NEWEST.match(statement), statement
    assert plans > 10
