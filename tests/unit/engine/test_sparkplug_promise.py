"""Sparkplug data mean what the log says before them, in whatever cuts and whoever asks."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iiot_platform.config.plant import Line, Plant
from iiot_platform.core import schema
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from iiot_platform.engine.backfill import backfill
from iiot_platform.engine.decode import decode
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.hour import HourBuilder
from iiot_platform.engine.lifecycle_ledger import LedgerHistory
from iiot_platform.engine.quarantine import Quarantine, retry
from iiot_platform.engine.replay import replay
from tests.servers.capture_log import write_segments
from tests.servers.effort import WHOLE
from tests.servers.engines import files_and_states, settle_all
from tests.servers.sparkplug import metric, payload, spoken
from tests.servers.sparkplug_feed import NAMES, feed
from tests.servers.streams import BASE_MS, HOUR_MS, signal

LINE = "line1"
SETTLED_MS = BASE_MS + 20 * HOUR_MS
MESSAGES = 110


def plant(**more: object) -> Plant:
    line = {"name": LINE, "sparkplug": {"nodes": [{"group": "G"}], **more}}
    detector = {"window": 12, "threshold": 2.5, "rate_window": 10, "relearn_after": 8}
    return Plant.model_validate({"lines": [line], "defaults": {"signal": detector}})


def whole(home: Home, setting: Plant) -> Engine:
    """Everything in one batch, settled."""
    engine = Engine(home, setting, clock=lambda: SETTLED_MS)
    while engine.run_batch(LINE, run_id="one", row_cap=10**6):
        pass
    settle_all(engine)
    return engine


def afresh(home: Home, records: list[Record]) -> dict[tuple[str, int], str]:
    """What these records give where nothing was computed before."""
    fresh_home = Home(home.root.parent / "fresh")
    write_segments(fresh_home, LINE, records)
    return files_and_states(whole(fresh_home, plant()))


@WHOLE
@given(seed=st.integers(0, 10**6))
def test_any_cut_and_any_rerun_give_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    noise = random.Random(seed)
    records = feed(seed, MESSAGES)
    folder: Path = tmp_path_factory.mktemp("sparkplug")
    home = Home(folder / "live")
    now, at = [BASE_MS], 0
    engine = Engine(home, plant(), clock=lambda: now[0])
    while at < len(records):
        part = records[at : at + noise.randrange(5, 60)]
        write_segments(home, LINE, part, rows=noise.randrange(3, 40))
        at, now[0] = at + len(part), part[-1].received_ts // 1_000
        while engine.run_batch(LINE, run_id=f"live{at}", row_cap=noise.choice((1, 20, 1_000))):
            if noise.random() < 0.3:
                break
        if noise.random() < 0.3:
            hour = noise.choice(engine.ledger.hours(LINE) or [hour_of(BASE_MS)])
            assert not engine.rerun(LINE, hour, run_id=f"again{at}").defects
    while engine.run_batch(LINE, run_id="last"):
        pass
    now[0] = SETTLED_MS
    settle_all(engine)

    fresh_home = Home(folder / "fresh")
    write_segments(fresh_home, LINE, records)
    fresh = whole(fresh_home, plant())
    assert files_and_states(engine) == files_and_states(fresh)
    before = files_and_states(fresh)
    for _ in backfill(fresh, LINE, fresh.ledger.hours(LINE), run_id="backfill"):
        pass
    assert files_and_states(fresh) == before


@settings(WHOLE, max_examples=2 * WHOLE.max_examples)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_any_range_of_the_log_decodes_as_in_the_whole(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: st.DataObject
) -> None:
    home = Home(tmp_path_factory.mktemp("ranges"))
    records = feed(seed, 90)
    write_segments(home, LINE, records)
    engine = Engine(home, plant(), clock=lambda: SETTLED_MS)
    engine.run_batch(LINE, run_id="one")
    under, history = plant().line_settings(LINE), LedgerHistory(engine.ledger, LINE)
    everything = engine.log.read(LINE, [(0, len(records))])
    known = decode(everything, under)
    for _ in range(12):
        chosen = data.draw(st.sets(st.integers(0, len(records) - 1), min_size=1))
        found = decode(everything.take(pa.array(sorted(chosen))), under, history)
        inside = np.array([offset in chosen for offset in known.readings.offset.tolist()])
        assert found.readings.to_table().equals(known.readings.take(inside).to_table())
        assert found.quarantine == tuple(e for e in known.quarantine if e.offset in chosen)


def test_a_candidate_that_changes_nothing_replays_to_what_stands(home: Home) -> None:
    write_segments(home, LINE, feed(5, 2 * MESSAGES))
    engine = whole(home, plant())
    tables = {name for name, _ in files_and_states(engine)}
    assert {"states", "signals", "gaps", "quarantine", "late_rows"} <= tables  # what feeds have
    hours = engine.ledger.hours(LINE)
    under = plant().line_settings(LINE)
    shown = list(replay(engine.log, engine.ledger, engine.store, under, hours))
    assert shown
    for hour in shown:
        assert hour.standing.keys() == hour.candidate.keys()
        for quantity, trace in hour.standing.items():
            again = hour.candidate[quantity]
            assert (trace.ts.tolist(), trace.value.tolist(), trace.anomaly.tolist()) == (
                again.ts.tolist(),
                again.value.tolist(),
                again.anomaly.tolist(),
            )


def test_nodes_that_the_plant_file_forgot_are_read_once_it_names_them(home: Home) -> None:
    records = feed(9, MESSAGES)
    write_segments(home, LINE, records)
    forgetful = Plant.model_validate(
        {"lines": [LINE], "defaults": plant().defaults.model_dump(exclude_unset=True)}
    )
    engine = whole(home, forgetful)
    assert engine.ledger.counts(LINE)["quarantined.bad_topic"] > MESSAGES / 2
    engine.close()

    mended = Engine(home, plant(), clock=lambda: SETTLED_MS)
    report = retry(mended, LINE, run_id="retry", reason="bad_topic")
    assert report.decoded > 0
    assert "bad_topic" not in report.stays
    for _ in backfill(mended, LINE, mended.ledger.hours(LINE), run_id="backfill"):
        pass
    settle_all(mended)
    assert files_and_states(mended) == afresh(home, records)


def test_what_was_too_old_is_read_later_with_the_birth_that_was_read_before(home: Home) -> None:
    temperature = metric(1.0, datatype=10, name="Temp", alias=1)
    birth = payload(temperature, ts=BASE_MS, seq=0)
    body = payload(metric(2.0, datatype=10, alias=1, ts=BASE_MS - 1_000), ts=BASE_MS, seq=1)
    records = [spoken("DBIRTH", "G/E/D", birth, BASE_MS), spoken("DDATA", "G/E/D", body, BASE_MS)]
    write_segments(home, LINE, records)
    strict = plant().model_copy(update={"max_lateness_s": 0.5})
    assert whole(home, strict).ledger.counts(LINE)["quarantined.too_old"] == 1
    engine = Engine(home, plant(), clock=lambda: SETTLED_MS)
    report = retry(engine, LINE, run_id="retry")
    assert (report.tried, report.decoded) == (1, 1)
    assert not list(Quarantine(engine.ledger, engine.store, LINE).rows())


@pytest.mark.parametrize("first", ["a rule that leaves it out", "no nodes"])
def test_what_settings_left_out_is_found_by_a_backfill_of_its_hour(home: Home, first: str) -> None:
    at = {name: metric(1.0, datatype=10, name=name, alias=i) for i, name in enumerate(NAMES)}
    later = BASE_MS + 2 * HOUR_MS
    historical = metric(7.0, datatype=10, alias=1, ts=BASE_MS + 60_000, is_historical=True)
    body = payload(metric(2.0, datatype=10, alias=0, ts=later), historical, ts=later, seq=1)
    records = [
        spoken("DBIRTH", "G/E/D", payload(*at.values(), ts=BASE_MS, seq=0), BASE_MS),
        signal("pressure", BASE_MS, 5.0),
        signal("pressure", later, 5.0),
        spoken("DDATA", "G/E/D", body, later),
    ]
    write_segments(home, LINE, records, rows=1)
    ignoring = plant(metrics=[{"match": "*/*/Load", "kind": "ignore"}])
    bare = plant().model_copy(update={"lines": (Line(name=LINE),)})
    engine = Engine(home, bare if first == "no nodes" else ignoring, clock=lambda: SETTLED_MS)
    while engine.run_batch(LINE, run_id="live", row_cap=1):
        pass
    settle_all(engine)
    engine.close()
    mended = Engine(home, plant(), clock=lambda: SETTLED_MS)
    for _ in backfill(mended, LINE, mended.ledger.hours(LINE), run_id="backfill"):
        pass
    settle_all(mended)
    assert files_and_states(mended) == afresh(home, records)


def test_values_of_one_moment_all_stay_and_a_message_that_comes_again_adds_none(
    home: Home,
) -> None:
    birth = payload(metric(1.0, datatype=10, name="Temp", alias=1), ts=BASE_MS, seq=0)
    both = [metric(value, datatype=10, alias=1, ts=BASE_MS + 5) for value in (2.0, 3.0)]
    twice = spoken("DDATA", "G/E/D", payload(*both, ts=BASE_MS + 9, seq=1), BASE_MS + 9)
    write_segments(home, LINE, [spoken("DBIRTH", "G/E/D", birth, BASE_MS), twice, twice])
    engine = whole(home, plant())
    readings = HourBuilder(engine.ledger, engine.store, LINE).standing(
        schema.READINGS, hour_of(BASE_MS)
    )
    values = [row["values"][0] for row in readings.to_pylist() if row["name"] == "D/Temp"]
    assert sorted(values) == [1.0, 2.0, 3.0]
    assert engine.ledger.counts(LINE)["duplicates"] == 2


def test_what_is_set_aside_in_part_is_not_read_again_for_nothing(home: Home) -> None:
    write_segments(home, LINE, feed(9, MESSAGES))
    engine = whole(home, plant())
    before = files_and_states(engine)
    report = retry(engine, LINE, run_id="retry")
    assert report.tried > 0
    assert (report.decoded, report.hours) == (0, [])
    assert files_and_states(engine) == before
