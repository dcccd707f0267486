"""The promise: whatever happened on the way, log and assigned settings alone make the tables."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.config.plant import Plant
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.engine import Engine
from tests.servers.capture_log import write_segments
from tests.servers.effort import WHOLE
from tests.servers.engines import files_and_states, settle_all
from tests.servers.streams import BASE_MS, HOUR_MS, line_records

LINE = "line1"
SPREAD_MS = 3 * HOUR_MS
SETTLED_MS = BASE_MS + 20 * HOUR_MS
RECORDS = 220


def plant(noise: random.Random) -> Plant:
    return Plant.model_validate(
        {
            "lines": [LINE],
            "defaults": {
                kind: {
                    "window": noise.choice((12, 20)),
                    "threshold": noise.choice((2.5, 3.5)),
                    "rate_window": 10,
                    "relearn_after": 8,
                }
                for kind in ("signal", "vibration", "valve", "electrical")
            },
        }
    )


def deliveries(seed: int) -> list[Record]:
    """A line's messages as they arrive, with everything that goes wrong on the way.

    A gap, duplicates, disorder within and across hours, rows that come hours late, and devices
    whose clocks are slow or fast.
    """
    noise = random.Random(seed)
    clocks = {name: noise.choice((0, 0, -600_000, 200_000)) for name in ("pressure", "mode", "v1")}
    gap = BASE_MS + noise.randrange(SPREAD_MS)
    arrived: list[tuple[int, Record]] = []
    for message in line_records(seed, RECORDS, spread_ms=SPREAD_MS):
        ts = message.received_ts // 1_000 - 20
        if gap <= ts < gap + HOUR_MS // 3:
            continue
        delays = [noise.choice((20, 20, 20, 20, 90_000, 1_200_000, 2 * HOUR_MS, 5 * HOUR_MS))]
        if noise.random() < 0.1:
            delays.append(noise.choice((500, HOUR_MS, 6 * HOUR_MS)))
        device = message.topic.rpartition("/")[2]
        arrived += [(ts - clocks.get(device, 0) + delay, message) for delay in delays]
        if noise.random() < 0.03:
            arrived.append((ts, message._replace(payload=b"{not json")))
    arrived.sort(key=lambda pair: pair[0])
    return [message._replace(received_ts=at * 1_000) for at, message in arrived]


def live(home: Home, records: Sequence[Record], noise: random.Random) -> tuple[Engine, Plant]:
    """The records as they come in, with restarts, reruns and a change of settings midway."""
    now, setting, at = [BASE_MS], plant(noise), 0
    engine = Engine(home, setting, clock=lambda: now[0])
    changes_at = noise.randrange(len(records))
    while at < len(records):
        part = records[at : at + noise.randrange(10, 60)]
        write_segments(home, LINE, part, rows=noise.randrange(5, 60))
        if at <= changes_at < at + len(part):
            setting = plant(noise)
        at, now[0] = at + len(part), part[-1].received_ts // 1_000
        if noise.random() < 0.3 or changes_at < at <= changes_at + len(part):
            engine.close()
            engine = Engine(home, setting, clock=lambda: now[0])
        cap = noise.choice((1, 30, 1_000))
        while engine.run_batch(LINE, run_id=f"live{at}", row_cap=cap):
            if noise.random() < 0.3:
                break
        if noise.random() < 0.2:
            for hour in engine.unsettled_hours(LINE)[:1]:
                assert not engine.rerun(LINE, hour, run_id=f"early{at}", kind="settle").defects
    now[0] = SETTLED_MS
    while engine.run_batch(LINE, run_id="last", row_cap=1_000):
        pass
    return engine, setting


def assigned_as(engine: Engine, other: Engine) -> None:
    """Gives one engine's ledger the settings assignments of another's."""
    for table in (db.SETTINGS, db.ASSIGNMENTS):
        with other.ledger.reading() as connection:
            rows = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
        with engine.ledger.transaction() as connection:
            connection.execute(sa.insert(table), rows)


@WHOLE
@given(seed=st.integers(0, 10**6))
def test_tables_follow_from_the_log_and_the_assigned_settings(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    records = deliveries(seed)
    folder: Path = tmp_path_factory.mktemp("promise")
    engine, setting = live(Home(folder / "live"), records, random.Random(seed))
    settle_all(engine)
    assert hour_of(BASE_MS) in engine.ledger.hours(LINE)

    fresh_home = Home(folder / "fresh")
    write_segments(fresh_home, LINE, records)
    fresh = Engine(fresh_home, setting, clock=lambda: SETTLED_MS)
    assigned_as(fresh, engine)
    while fresh.run_batch(LINE, run_id="fresh"):
        pass
    settle_all(fresh)
    assert files_and_states(engine) == files_and_states(fresh)
