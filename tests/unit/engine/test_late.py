"""Late rows: their hour is computed again, and later ones only while a state differs."""

from pathlib import Path

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

HOURS = 5
STEP_MS = 120_000
AN_HOUR = HOUR_MS // STEP_MS  # 30 readings, a window and a half
FIRST = hour_of(BASE_MS)


def readings(device: str = "t") -> list[Record]:
    return [
        signal(device, BASE_MS + i * STEP_MS, float(i % 3), machine="press")
        for i in range(HOURS * AN_HOUR)
    ]


def late(ts: int, device: str = "t") -> Record:
    return signal(device, ts + 1_000, 1.25, received=BASE_MS + HOURS * HOUR_MS)


def reruns(engine: Engine) -> list[int]:
    """Settles, and says which hours that took, relative to the first one."""
    done = []
    while dirty := engine.dirty_hours(LINE):
        assert len(done) < 3 * HOURS, "the ripple never ends"
        engine.rerun(LINE, dirty[0], run_id="rerun")
        done.append(dirty[0] - FIRST)
    return done


@pytest.mark.parametrize(
    ("hour", "place", "computed"),
    [
        (1, 5, [1]),  # out of the window when the hour ends
        (1, 25, [1, 2]),  # still in the window, out of it an hour later
        (4, 5, []),  # the frontier's own hour restarts at once
        (0, 5, [0, 1, 2, 3, 4]),  # in the frozen reference, which lasts
    ],
)
def test_a_late_row_ripples_no_further_than_the_states_differ(
    home: Home, tmp_path: Path, hour: int, place: int, computed: list[int]
) -> None:
    row = late(BASE_MS + (hour * AN_HOUR + place) * STEP_MS)
    engine = engine_at(home.root, readings())
    drain(engine, [40])
    write_segments(home, LINE, [row])
    report = engine.run_batch(LINE, run_id="late")
    assert report is not None
    assert report.late_rows == (1 if computed else 0)
    assert reruns(engine) == computed
    once = engine_at(tmp_path / "once", [*readings(), row])
    drain(once, [10_000])
    assert contents(engine) == contents(once)


def test_a_late_row_marks_its_hour_with_series_and_reason(home: Home) -> None:
    engine = engine_at(home.root, readings())
    drain(engine, [10_000])
    write_segments(home, LINE, [late(BASE_MS), late(BASE_MS + 5_000)])
    engine.run_batch(LINE, run_id="late")
    ((hour, marks),) = engine.ledger.dirty(LINE).items()
    assert hour == FIRST
    assert [mark for _, mark in marks] == [(FIRST, "signal/press/t/", "late", 2)]
    assert engine.ledger.counts(LINE)["late_rows"] == 2
    assert len(rows_of(engine, schema.SIGNALS, FIRST)) == AN_HOUR
    settle(engine)
    assert len(rows_of(engine, schema.SIGNALS, FIRST)) == AN_HOUR + 2


def test_only_the_late_series_waits(home: Home) -> None:
    engine = engine_at(home.root, readings())
    drain(engine, [10_000])
    write_segments(home, LINE, [late(BASE_MS), late(BASE_MS, "new")])
    engine.run_batch(LINE, run_id="late")
    names = rows_of(engine, schema.SIGNALS, FIRST).column("sensor_name").to_pylist()
    assert names.count("new") == 1
    assert reruns(engine) == [0, 1, 2, 3, 4]


def test_a_late_row_that_comes_while_its_hour_is_computed_is_not_forgotten(home: Home) -> None:
    engine = engine_at(home.root, readings())
    drain(engine, [10_000])
    write_segments(home, LINE, [late(BASE_MS)])
    engine.run_batch(LINE, run_id="late")
    other = Engine(home, engine._plant)
    write_segments(home, LINE, [late(BASE_MS + 60_000)])
    commit = engine.ledger.commit

    def after_another(change):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - a wrapper
        other.run_batch(LINE, run_id="meanwhile")
        return commit(change)

    engine.ledger.commit = after_another  # type: ignore[method-assign]
    engine.rerun(LINE, FIRST, run_id="rerun")
    engine.ledger.commit = commit  # type: ignore[method-assign]
    assert FIRST in engine.dirty_hours(LINE)
    settle(engine)
    assert len(rows_of(engine, schema.SIGNALS, FIRST)) == AN_HOUR + 2


def test_a_row_that_was_refused_is_found_by_the_hour_that_it_claims(home: Home) -> None:
    hour = hour_of(BASE_MS)
    old = signal("t", BASE_MS, 1.0, received=BASE_MS + 3 * 3_600_000)
    strict = Plant.model_validate({"lines": [{"name": "line1", "max_lateness_s": 60.0}]})
    generous = Plant.model_validate({"lines": ["line1"]})
    write_segments(home, "line1", [old])
    engine = Engine(home, strict)
    report = engine.run_batch("line1", run_id="live")
    assert report is not None
    assert report.quarantined == {"too_old": 1}
    found = Engine(home, generous).rerun("line1", hour, run_id="again", settings="current").report
    assert found.rows["signals"] == 1
