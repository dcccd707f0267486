"""Many batches equal one, and live equals rerun, whatever the order of arrival."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iiot_platform.core import schema
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from tests.servers.capture_log import write_segments
from tests.servers.effort import WHOLE
from tests.servers.engines import LINE, contents, drain, engine_at, rows_of, settle
from tests.servers.streams import BASE_MS, cuts, disturb, line_records, signal


@WHOLE
@given(seed=st.integers(0, 10_000), sizes=cuts(120))
def test_batches_cut_anywhere_give_the_same_as_one(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sizes: list[int]
) -> None:
    records = line_records(seed, 160)
    cut = engine_at(tmp_path_factory.mktemp("cut"), records)
    whole = engine_at(tmp_path_factory.mktemp("whole"), records)
    assert drain(cut, sizes) >= 2
    assert drain(whole, [10_000]) == 1
    assert contents(cut) == contents(whole)
    assert not cut.dirty_hours(LINE)


@WHOLE
@example(seed=843, sizes=[50])  # a restart of one kind took another kind's rows of that name along
@given(seed=st.integers(0, 10_000), sizes=cuts(200))
def test_disordered_batches_settle_to_one_computation(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sizes: list[int]
) -> None:
    records = disturb(line_records(seed, 200), seed)
    live = engine_at(tmp_path_factory.mktemp("live"), records)
    drain(live, sizes)
    settle(live)
    once = engine_at(tmp_path_factory.mktemp("once"), records)
    drain(once, [10_000])
    assert contents(live) == contents(once)


@WHOLE
@given(seed=st.integers(0, 10_000), sizes=cuts(200))
def test_a_rerun_of_every_hour_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sizes: list[int]
) -> None:
    live = engine_at(tmp_path_factory.mktemp("live"), disturb(line_records(seed, 150), seed))
    drain(live, sizes)
    settle(live)
    before = contents(live)
    for hour in live.ledger.hours(LINE):
        live.rerun(LINE, hour, run_id="again")
        assert not live.dirty_hours(LINE)
    assert contents(live) == before


def test_a_reading_that_comes_again_is_counted_and_changes_nothing(home: Home) -> None:
    records = line_records(3, 100)
    engine = engine_at(home.root, records)
    drain(engine, [10])
    before = contents(engine)
    again = records[-20:]
    write_segments(home, LINE, again)
    report = engine.run_batch(LINE, run_id="again")
    assert report is not None
    assert report.duplicates == sum(2 if b"Humidity" in r.payload else 1 for r in again)
    assert contents(engine) == before


def test_another_value_at_the_same_time_stands_if_it_came_later(home: Home) -> None:
    engine = engine_at(home.root, [signal("t", BASE_MS, 1.0), signal("t", BASE_MS, 2.0)])
    drain(engine, [10])
    hour = hour_of(BASE_MS)
    assert rows_of(engine, schema.SIGNALS, hour).column("value").to_pylist() == [2.0]
    assert len(rows_of(engine, schema.READINGS, hour)) == 2
    assert engine.ledger.counts(LINE)["conflicts"] == 1


def test_a_slow_clock_restarts_nobody(home: Home) -> None:
    ten_minutes = 600_000
    records = []
    for i in range(0, 3_600_000, 30_000):
        at = BASE_MS + 1_800_000 + i
        records.append(signal("right", at, float(i % 7), received=at))
        records.append(signal("slow", at - ten_minutes, float(i % 5), received=at))
    engine = engine_at(home.root, records)
    drain(engine, [40])
    assert not engine.dirty_hours(LINE)
    assert engine.ledger.counts(LINE).get("late_rows", 0) == 0
