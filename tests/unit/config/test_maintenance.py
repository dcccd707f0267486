from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from iiot_platform.config.maintenance import Maintenance, MaintenanceCalendar
from iiot_platform.core.clock import from_ms, to_ms

BERLIN = "Europe/Berlin"


def utc(text: str) -> int:
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=UTC))


def spans(window: dict[str, Any], start: str, end: str, line: str = "line1") -> list[str]:
    made = Maintenance.model_validate({"name": "m", **window})
    calendar = MaintenanceCalendar([made], BERLIN)
    return [
        f"{from_ms(span.start_ms):%m-%dT%H:%M}-{from_ms(span.end_ms):%m-%dT%H:%M}"
        for span in calendar.spans(line, utc(start), utc(end))
    ]


def test_once_is_in_the_plants_time() -> None:
    once = {"from": "2026-07-03 06:00", "to": "2026-07-04 06:00"}
    assert spans(once, "2026-07-01", "2026-07-09") == ["07-03T04:00-07-04T04:00"]
    assert spans(once, "2026-07-05", "2026-07-09") == []
    zoned = {"from": "2026-07-03T06:00Z", "to": "2026-07-03T07:00Z"}
    assert spans(zoned, "2026-07-01", "2026-07-09") == ["07-03T06:00-07-03T07:00"]


def test_weekly_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    weekly = {"days": ["sat"], "from": "22:00", "to": "04:00"}
    assert spans(weekly, "2026-07-01", "2026-07-12") == [
        "07-04T20:00-07-05T02:00",
        "07-11T20:00-07-12T00:00",
    ]
    assert spans(weekly, "2026-07-04T23:00", "2026-07-05") == ["07-04T23:00-07-05T00:00"]


def test_a_whole_day_and_the_next_are_one_span() -> None:
    days = {"days": ["sat", "sun"], "from": "00:00", "to": "00:00"}
    assert spans(days, "2026-07-01", "2026-07-08") == ["07-03T22:00-07-05T22:00"]


def test_over_the_nights_in_which_the_clocks_change() -> None:
    night = {"days": ["sat"], "from": "22:00", "to": "06:00"}
    assert spans(night, "2026-03-28", "2026-03-30") == ["03-28T21:00-03-29T04:00"]
    assert spans(night, "2026-10-24", "2026-10-26") == ["10-24T20:00-10-25T05:00"]


def test_times_that_the_clocks_skip_or_show_twice() -> None:
    skipped = {"days": ["sun"], "from": "02:30", "to": "04:00"}
    assert spans(skipped, "2026-03-29", "2026-03-30") == ["03-29T01:00-03-29T02:00"]
    twice = {"days": ["sun"], "from": "02:00", "to": "02:30"}
    assert spans(twice, "2026-10-25", "2026-10-26") == ["10-25T00:00-10-25T01:30"]


def test_lines_are_chosen_by_name() -> None:
    some = {"lines": ["press*"], "from": "2026-07-03 06:00", "to": "2026-07-03 07:00"}
    assert spans(some, "2026-07-01", "2026-07-09", "press_2")
    assert not spans(some, "2026-07-01", "2026-07-09", "packer")


def test_a_moment_is_held_from_the_start_to_before_the_end() -> None:
    window = Maintenance.model_validate(
        {"name": "m", "from": "2026-07-03 06:00", "to": "2026-07-03 07:00"}
    )
    calendar = MaintenanceCalendar([window], "UTC")
    held = [
        calendar.holds("x", utc(f"2026-07-03T{at}")) for at in ("05:59", "06:00", "06:59", "07:00")
    ]
    assert held == [False, True, True, False]


@pytest.mark.parametrize(
    ("window", "told"),
    [
        ({"from": "06:00", "to": "07:00"}, "should be a time such as"),
        ({"days": ["sat"], "from": "25:00", "to": "07:00"}, "should be a time of day"),
        ({"days": ["saturday"], "from": "22:00", "to": "07:00"}, "Input should be 'mon'"),
        ({"from": "2026-07-04 06:00", "to": "2026-07-03 06:00"}, "should end behind its start"),
        ({"from": "2026-07-04 06:00", "to": "2029-07-03 06:00"}, "should last 400 days at most"),
        ({"from": "2026-07-04 06:00", "to": "2026-07-05 06:00Z"}, "both 'from' and 'to' a zone"),
    ],
)
def test_what_can_not_be_is_told(window: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Maintenance.model_validate({"name": "m", **window})
