"""A change of settings: the open hour is computed anew under it, closed hours keep theirs."""

import dataclasses

import pytest

from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from tests.servers.capture_log import write_segments
from tests.servers.engines import LINE, contents, drain, engine_at, rows_of, settle
from tests.servers.streams import BASE_MS, HOUR_MS, signal

CLOSED = hour_of(BASE_MS)
OPEN = CLOSED + 1
STEP_MS = 60_000


def plant(threshold: float) -> Plant:
    signals = {"window": 10, "rate_window": 5, "threshold": threshold, "relearn_after": 0}
    return Plant.model_validate({"lines": [LINE], "defaults": {"signal": signals}})


OLD, NEW = plant(9.0), plant(1.0)
OLD_VERSION, NEW_VERSION = (p.line_settings(LINE).version for p in (OLD, NEW))


def readings(first: int, last: int, device: str = "t") -> list[Record]:
    return [signal(device, BASE_MS + i * STEP_MS, float(i % 5)) for i in range(first, last)]


@dataclasses.dataclass
class Clock:
    """The time of day, set by hand."""

    ms: int = BASE_MS + HOUR_MS + 30 * STEP_MS

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def home_of_old(home: Home) -> Home:
    """An hour that has closed and half of an open one, under the old settings."""
    records = sorted(
        [*readings(0, 90), *readings(0, 20, "gone")], key=lambda record: record.received_ts
    )
    drain(engine_at(home.root, records, OLD, clock=Clock()), [50])
    return home


def versions(engine: Engine, hour: int) -> set[str]:
    """The settings that any row of an hour was computed under."""
    return {
        version
        for table in schema.TABLES.values()
        for version in rows_of(engine, table, hour).column("config_version").to_pylist()
    }


def test_the_open_hour_is_computed_anew_and_the_closed_one_stays(home_of_old: Home) -> None:
    engine = Engine(home_of_old, NEW, clock=Clock())
    assert versions(engine, OPEN) == {OLD_VERSION}
    before = {name: found for name, found in contents(engine).items() if name[1] == CLOSED}
    write_segments(home_of_old, LINE, readings(90, 92))
    report = engine.run_batch(LINE, run_id="changed")
    assert report is not None
    assert report.late_rows == 0
    assert versions(engine, OPEN) == {NEW_VERSION}
    assert versions(engine, CLOSED) == {OLD_VERSION}
    rows = rows_of(engine, schema.SIGNAL_ANOMALIES, OPEN)
    assert len(rows) == 32
    assert set(rows.column("z_score_thresh").to_pylist()) == {1.0}
    after = contents(engine)
    assert {name: found for name, found in after.items() if name[1] == CLOSED} == before
    engine.rerun(LINE, OPEN, run_id="again")
    assert contents(engine) == after
    assert not engine.dirty_hours(LINE)


def test_the_next_batch_goes_on_and_does_not_begin_anew(home_of_old: Home) -> None:
    engine = Engine(home_of_old, NEW, clock=Clock())
    write_segments(home_of_old, LINE, readings(90, 92))
    engine.run_batch(LINE, run_id="changed")
    write_segments(home_of_old, LINE, readings(92, 95))
    report = engine.run_batch(LINE, run_id="next")
    assert report is not None
    assert report.hours[0].rows["signals"] == 3
    assert report.hours[0].total["signals"] == 35


@pytest.mark.parametrize("device", ["t", "gone", "new"])
def test_late_rows_of_a_closed_hour_are_computed_under_its_own_settings(
    home_of_old: Home, device: str
) -> None:
    """Whether their series has gone on, has ended, or begins with them."""
    engine = Engine(home_of_old, NEW, clock=Clock())
    late = signal(device, BASE_MS + 30_500, 2.5, received=Clock().ms)
    write_segments(home_of_old, LINE, [late, *readings(90, 91)])
    report = engine.run_batch(LINE, run_id="changed")
    assert report is not None
    assert report.late_rows == 1
    settle(engine)
    assert versions(engine, CLOSED) == {OLD_VERSION}
    assert versions(engine, OPEN) == {NEW_VERSION}
    assert 2.5 in rows_of(engine, schema.SIGNALS, CLOSED).column("value").to_pylist()


def test_a_message_set_aside_in_a_closed_hour_is_not_forgotten(home_of_old: Home) -> None:
    engine = Engine(home_of_old, NEW, clock=Clock())
    bad = readings(59, 60)[0]._replace(payload=b"{", received_ts=(BASE_MS + 59 * STEP_MS) * 1_000)
    write_segments(home_of_old, LINE, [bad])
    report = engine.run_batch(LINE, run_id="changed")
    assert report is not None
    assert report.quarantined == {"not_json": 1}
    settle(engine)
    rows = rows_of(engine, schema.QUARANTINE, CLOSED)
    assert rows.column("payload").to_pylist() == [b"{"]
    assert rows.column("config_version").to_pylist() == [OLD_VERSION]


def test_a_person_may_compute_a_closed_hour_under_the_new_settings(home_of_old: Home) -> None:
    engine = Engine(home_of_old, NEW, clock=Clock())
    engine.rerun(LINE, CLOSED, run_id="backfill", settings="current", kind="backfill")
    assert versions(engine, CLOSED) == {NEW_VERSION}
    assert engine.settings_for(LINE, CLOSED, keep=True) == NEW.line_settings(LINE)
    engine.rerun(LINE, CLOSED, run_id="kept")
    assert versions(engine, CLOSED) == {NEW_VERSION}


def test_an_hour_stays_open_for_the_grace_of_stragglers(home: Home) -> None:
    clock = Clock(BASE_MS + HOUR_MS + 299_000)
    engine = engine_at(home.root, readings(0, 5), OLD, clock=clock)
    assert engine.is_open(CLOSED)
    clock.ms += 1_000
    assert not engine.is_open(CLOSED)
