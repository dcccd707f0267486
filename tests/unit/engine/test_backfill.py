"""A backfill beside live batches: what it loses it does again, and it does not try for ever."""

from typing import Any

import pytest

from iiot_platform.config.plant import Plant
from iiot_platform.core.paths import Home
from iiot_platform.engine.backfill import backfill
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.errors import CommitLostError
from tests.servers.capture_log import write_segments
from tests.servers.streams import BASE_MS, HOUR_MS, signal

LINE = "line1"
OLD = Plant.model_validate({"lines": [LINE]})
NEW = Plant.model_validate({"lines": [LINE], "defaults": {"signal": {"threshold": 2}}})
OTHER_WINDOW = Plant.model_validate({"lines": [LINE], "defaults": {"signal": {"window": 7}}})


def computed(home: Home, count: int = 3) -> Engine:
    records = [signal("t", BASE_MS + i * HOUR_MS // 2, float(i % 3)) for i in range(2 * count)]
    write_segments(home, LINE, records, rows=1)
    engine = Engine(home, OLD)
    while engine.run_batch(LINE, run_id="live", row_cap=2):
        pass
    return engine


class _Overtaken(Engine):
    """An engine whose hours a live batch takes just before the commit, some times."""

    losses = 0

    def whole_hour(self, line: str, hour: int, *args: Any, **more: Any) -> Any:
        found = super().whole_hour(line, hour, *args, **more)
        if self.losses:
            self.losses -= 1
            other = Engine(Home(self.store.path(".").parent), OLD)
            other.rerun(line, hour, run_id="other")
            other.close()
        return found


def test_hours_get_the_current_settings_oldest_first(home: Home) -> None:
    hours = computed(home).ledger.hours(LINE)
    engine = Engine(home, NEW)
    found = list(backfill(engine, LINE, hours[::-1], run_id="b"))
    reports = [one.settled.report for one in found]
    assert [report.hour for report in reports] == hours
    assert not any(one.follows for one in found)
    assert {report.settings_version for report in reports} == {NEW.line_settings(LINE).version}
    assert not engine.dirty_hours(LINE)


def test_an_hour_that_was_changed_meanwhile_is_computed_once_more(home: Home) -> None:
    hours = computed(home).ledger.hours(LINE)
    engine = _Overtaken(home, NEW)
    engine.losses = 2
    (found,) = backfill(engine, LINE, hours[:1], run_id="b")
    assert engine.losses == 0
    assert found.settled.report.settings_version == NEW.line_settings(LINE).version


def test_an_hour_that_never_rests_is_given_up(home: Home) -> None:
    hours = computed(home).ledger.hours(LINE)
    engine = _Overtaken(home, NEW)
    engine.losses = 100
    with pytest.raises(CommitLostError):
        list(backfill(engine, LINE, hours[:1], run_id="b"))


def test_hours_that_went_on_from_another_state_follow_under_their_own_settings(
    home: Home,
) -> None:
    hours = computed(home).ledger.hours(LINE)
    engine = Engine(home, OTHER_WINDOW)
    found = list(backfill(engine, LINE, hours[:1], run_id="b"))
    assert [one.settled.report.hour for one in found] == hours
    assert [one.follows for one in found] == [False, True, True]
    old = OLD.line_settings(LINE).version
    assert {one.settled.report.settings_version for one in found[1:]} == {old}
    assert not engine.dirty_hours(LINE)


def test_a_following_hour_that_never_rests_is_left(home: Home) -> None:
    hours = computed(home).ledger.hours(LINE)
    engine = _Overtaken(home, OTHER_WINDOW)
    found = backfill(engine, LINE, hours[:1], run_id="b")
    assert next(found).settled.report.hour == hours[0]
    engine.losses = 100
    assert list(found) == []
    # the live batches have computed the next hour, and the one behind it is left
    assert engine.dirty_hours(LINE) == hours[2:]


def test_hours_that_are_dirty_for_other_reasons_are_left(home: Home) -> None:
    hours = computed(home).ledger.hours(LINE)
    write_segments(home, LINE, [signal("t", BASE_MS + HOUR_MS + 1, 9.0)])
    engine = Engine(home, OLD)
    assert engine.run_batch(LINE, run_id="late") is not None
    dirty = engine.dirty_hours(LINE)
    (found,) = backfill(engine, LINE, hours[:1], run_id="b", settings="keep")
    assert found.settled.equal
    assert dirty
    assert engine.dirty_hours(LINE) == dirty
