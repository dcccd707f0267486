"""The share of an hour that a log covers."""

import pytest

from iiot_platform.core.clock import MS_PER_HOUR, hour_start_ms
from iiot_platform.engine.coverage import Lack, covered_share, open_gaps

HOUR = 498_700
BEGIN = hour_start_ms(HOUR)
END = BEGIN + MS_PER_HOUR
MINUTE = 60_000


def lack(begin: int, end: int, *, complete: bool = False, source: str = "plc") -> Lack:
    return Lack(source, BEGIN + begin * MINUTE, BEGIN + end * MINUTE, complete)


@pytest.mark.parametrize(
    ("records", "share"),
    [
        ([], 1.0),
        ([lack(0, 15)], 0.75),
        ([lack(0, 15), lack(10, 30)], 0.5),
        ([lack(-30, 6), lack(54, 90)], 0.8),
        ([lack(-30, 90)], 0.0),
        ([lack(0, 15), lack(0, 15, complete=True)], 1.0),
        ([lack(0, 15), lack(0, 15, complete=True, source="other")], 0.75),
        ([lack(0, 15), lack(0, 15, complete=False)], 0.75),
    ],
)
def test_gaps_that_were_not_filled_are_not_covered(records: list[Lack], share: float) -> None:
    assert covered_share(open_gaps(records), HOUR, END) == pytest.approx(share)


def test_an_open_hour_counts_as_far_as_it_has_passed() -> None:
    gaps = open_gaps([lack(0, 15)])
    assert covered_share(gaps, HOUR, BEGIN + 30 * MINUTE) == pytest.approx(0.5)
    assert covered_share(gaps, HOUR, BEGIN) == 1.0
