"""What-if: the shadow is what a backfill would compute, and what changes is counted."""

import math

import pytest

from iiot_platform.config.plant import Plant
from iiot_platform.config.shifts import DEFAULT_SHIFTS, ShiftCalendar
from iiot_platform.core import schema
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.backfill import backfill
from iiot_platform.engine.canonical import canonical_hash
from iiot_platform.engine.comparison import EXAMPLES, Comparison
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.replay import Shadow, replay
from tests.servers.capture_log import write_segments
from tests.servers.streams import BASE_MS, HOUR_MS, line_records, signal

LINE = "line1"
HOUR = hour_of(BASE_MS)


def plant(**detector: object) -> Plant:
    signal_settings = {"window": 20, "rate_window": 10, "relearn_after": 0, "refractory": 0}
    return Plant.model_validate(
        {"lines": [LINE], "defaults": {"signal": signal_settings | detector}}
    )


def spiked(messages: int, spikes: dict[int, float]) -> list[float]:
    """A level of 20 that swings by 1, with spikes at some places, in std of about 0.7."""
    return [20 + math.sin(i) + spikes.get(i, 0.0) for i in range(messages)]


def engine_with(home: Home, values: list[float], settings: Plant, step_ms: int = 10_000) -> Engine:
    records = [signal("t", BASE_MS + i * step_ms, value) for i, value in enumerate(values)]
    write_segments(home, LINE, records, rows=50)
    engine = Engine(home, settings)
    while engine.run_batch(LINE, run_id="live", row_cap=100):
        pass
    return engine


def compared(engine: Engine, candidate: Plant, timezone: str = "UTC") -> Comparison:
    settings = candidate.line_settings(LINE)
    found = Comparison(settings, ShiftCalendar(DEFAULT_SHIFTS, timezone))
    hours = engine.ledger.hours(LINE)
    for hour in replay(engine.log, engine.ledger, engine.store, settings, hours):
        found.add(hour)
    return found


def rows_of_ledger(engine: Engine) -> dict[str, list[object]]:
    with engine.ledger.reading() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(table.select())]
            for table in db.METADATA.sorted_tables
        }


def test_a_lower_threshold_adds_the_spike_between_the_two(home: Home) -> None:
    engine = engine_with(home, spiked(100, {40: 5.0, 60: 3.5}), plant(threshold=6))
    (found,) = compared(engine, plant(threshold=4)).quantities
    assert (found.standing, found.candidate, found.added, found.removed) == (1, 2, 1, 0)
    assert found.unchanged == 1
    (example,) = found.examples_added
    assert example.ts == BASE_MS + 60 * 10_000
    assert example.standing is not None
    assert example.candidate is not None
    assert (example.standing.threshold, example.candidate.threshold) == (6, 4)
    assert 4 < example.candidate.z_score < 6
    assert example.standing.z_score == example.candidate.z_score


def test_a_higher_threshold_removes_and_examples_are_bounded(home: Home) -> None:
    spikes = dict.fromkeys(range(30, 100, 7), 9.0)
    engine = engine_with(home, spiked(100, spikes), plant(threshold=4))
    (found,) = compared(engine, plant(threshold=50)).quantities
    assert (found.standing, found.candidate, found.removed) == (10, 0, 10)
    assert [row.ts for row in found.examples_removed] == [
        BASE_MS + i * 10_000 for i in sorted(spikes)[:EXAMPLES]
    ]


def test_the_same_settings_change_nothing_and_nothing_is_written(home: Home) -> None:
    write_segments(home, LINE, line_records(7, 200), rows=50)
    engine = Engine(home, plant())
    while engine.run_batch(LINE, run_id="live", row_cap=60):
        pass
    before = rows_of_ledger(engine), sorted(home.tables.rglob("*"))
    found = compared(engine, plant())
    assert found.quantities
    assert all(
        not row.added and not row.removed and not row.rows_added and not row.rows_removed
        for row in found.quantities
    )
    assert (rows_of_ledger(engine), sorted(home.tables.rglob("*"))) == before


@pytest.mark.parametrize("change", [{"threshold": 2.0}, {"window": 12}, {"detector": "robust_z"}])
def test_the_shadow_equals_the_backfill_that_follows(home: Home, change: dict[str, object]) -> None:
    write_segments(home, LINE, line_records(3, 240), rows=50)
    engine = Engine(home, plant())
    while engine.run_batch(LINE, run_id="live", row_cap=60):
        pass
    hours = engine.ledger.hours(LINE)[1:]
    candidate = plant(**change)
    shadow = Shadow(
        engine.log, engine.ledger, engine.store, candidate.line_settings(LINE), hours[0]
    )
    expected = {
        (hour, name): canonical_hash(schema.TABLES[name], rows)
        for hour in hours
        for name, rows in shadow.compute(hour).tables.items()
    }
    promoted = Engine(home, candidate)
    list(backfill(promoted, LINE, hours, run_id="backfill"))
    stands = {}
    for hour, name in expected:
        files = [file.path for file in promoted.ledger.files(LINE, name, hour)]
        rows = promoted.store.read(schema.TABLES[name], files)
        stands[hour, name] = canonical_hash(schema.TABLES[name], rows)
    assert stands == expected


def test_a_new_window_says_how_many_rows_it_learnt_from(home: Home) -> None:
    engine = engine_with(home, spiked(100, {}), plant())
    (found,) = compared(engine, plant(window=30)).quantities
    assert found.learning == 30


def test_alarm_minutes_are_minutes_of_local_time_with_an_alert(home: Home) -> None:
    # two spikes in one minute, one in the next: three alerts in two minutes
    engine = engine_with(home, spiked(100, {42: 9.0, 44: 9.0, 48: 9.0}), plant(threshold=90))
    berlin = compared(engine, plant(threshold=4), "Europe/Berlin")
    (load,) = berlin.shifts
    assert (load.alarm_minutes_standing, load.alarm_minutes_candidate) == (0, 2)
    assert (load.alerts_standing, load.alerts_candidate) == (0, 3)
    held_back = compared(engine, plant(threshold=4, refractory=200)).shifts[0]
    assert (held_back.alarm_minutes_candidate, held_back.alerts_candidate) == (1, 1)


def test_refractory_points_go_on_into_the_next_hour(home: Home) -> None:
    values = spiked(100, {60: 30.0, 62: 30.0})
    engine = engine_with(home, values, plant(threshold=4), step_ms=HOUR_MS // 61)
    assert len(engine.ledger.hours(LINE)) == 2
    found = compared(engine, plant(threshold=4, refractory=50))
    assert sum(load.alerts_standing for load in found.shifts) == 2
    assert sum(load.alerts_candidate for load in found.shifts) == 1


def test_a_night_shift_belongs_to_the_day_it_begins() -> None:
    calendar = ShiftCalendar(DEFAULT_SHIFTS, "Europe/Berlin")
    midnight = 1_763_766_000_000  # 2025-11-22 00:00 in Berlin
    assert str(calendar.shift_at(midnight).day) == "2025-11-21"
    assert calendar.shift_at(midnight).name == "night"
    assert calendar.shift_at(midnight + 6 * HOUR_MS).name == "early"
    assert str(calendar.shift_at(midnight + 23 * HOUR_MS).day) == "2025-11-22"
