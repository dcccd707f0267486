from datetime import UTC, datetime

import pytest

from iiot_platform.cli.moments import MomentError, hours_of, moment_ms
from iiot_platform.core.clock import from_ms, hour_of, to_ms

ZONE = "Europe/Rome"
NOW = to_ms(datetime(2026, 11, 22, 9, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T08:00Z", "2026-11-22T08:00:00+00:00"),
        ("2026-11-22T08:00+02:00", "2026-11-22T06:00:00+00:00"),
        ("2026-11-22T08:00", "2026-11-22T07:00:00+00:00"),
        ("2026-07-22 08:00", "2026-07-22T06:00:00+00:00"),
        ("2026-11-22", "2026-11-21T23:00:00+00:00"),
        ("08:15", "2026-11-22T07:15:00+00:00"),
        ("8:15", "2026-11-22T07:15:00+00:00"),
        ("-2h", "2026-11-22T07:30:00+00:00"),
        ("-1.5d", "2026-11-20T21:30:00+00:00"),
        ("-90min", "2026-11-22T08:00:00+00:00"),
        ("now", "2026-11-22T09:30:00+00:00"),
    ],
)
def test_a_time_is_understood(text: str, expected: str) -> None:
    assert from_ms(moment_ms(text, timezone=ZONE, now_ms=NOW)).isoformat() == expected


@pytest.mark.parametrize("text", ["yesterday", "2h", "25:00", "2026-13-01", "", "-2 weeks"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(MomentError, match="is no time; write a time such as 2026"):
        moment_ms(text, timezone=ZONE, now_ms=NOW)


def test_a_time_that_the_clocks_skip_is_refused() -> None:
    with pytest.raises(MomentError, match="does not exist in Europe/Rome"):
        moment_ms("2026-03-29T02:30", timezone=ZONE, now_ms=NOW)


def test_hours_hold_the_whole_span() -> None:
    hour = hour_of(NOW)
    assert hours_of("-2h", None, timezone=ZONE, now_ms=NOW) == range(hour - 2, hour + 1)
    assert hours_of("08:00", "10:00", timezone=ZONE, now_ms=NOW) == range(hour - 2, hour)
    with pytest.raises(MomentError, match="is not behind"):
        hours_of("now", "-1h", timezone=ZONE, now_ms=NOW)
