"""Time in states per interval, against a count millisecond by millisecond."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.analytics.state_time import INTERVAL_MS, Carry, IntervalTimes, time_in_state
from iiot_platform.core.schema import SUMMARY_INTERVAL_MS


def times(
    ts: Any, value: Any, good: Any = None, *, hold_s: float = 300.0, carry: Carry | None = None
) -> tuple[IntervalTimes, Carry]:
    good = np.ones(len(ts), bool) if good is None else np.array(good, bool)
    return time_in_state(
        np.array(ts, np.int64),
        np.array(value, np.int64),
        good,
        carry or Carry(),
        (1, 3),
        hold_s,
        10_000,
    )


def listed(found: IntervalTimes) -> list[tuple[int, int, int]]:
    return [tuple(row) for row in np.transpose(found).tolist()]


def test_time_is_split_at_intervals() -> None:
    found, carry = times([4_000, 12_000, 25_500], [1, 2, 3])
    assert listed(found) == [(0, 6_000, 6_000), (10_000, 2_000, 10_000), (20_000, 0, 5_500)]
    assert carry == Carry(3, 25_500)


def test_a_state_is_held_no_longer_than_hold_s() -> None:
    found, _ = times([0, 3_600_000], [1, 1], hold_s=15.0)
    assert listed(found) == [(0, 10_000, 10_000), (10_000, 5_000, 5_000)]


def test_after_a_reading_that_is_not_good_time_is_unknown() -> None:
    found, _ = times([0, 1_000, 5_000, 6_000], [1, 1, 1, 1], [1, 0, 1, 1])
    assert listed(found) == [(0, 2_000, 2_000)]


def test_time_may_belong_to_an_hour_before() -> None:
    hour = 3_600_000
    found, _ = times([hour + 2_000], [0], carry=Carry(1, hour - 3_000))
    assert listed(found) == [(hour - 10_000, 3_000, 3_000), (hour, 2_000, 2_000)]


readings = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.booleans()), max_size=25)


@given(read=readings, cuts=st.lists(st.integers(0, 25), max_size=6))
def test_any_cut_sums_to_the_count_of_milliseconds(
    read: list[tuple[int, int, bool]], cuts: list[int]
) -> None:
    ts = np.cumsum([dt for dt, _, _ in read], dtype=np.int64)
    running: Counter[int] = Counter()
    known: Counter[int] = Counter()
    for (_, value, good), a, b in zip(read, ts.tolist(), ts.tolist()[1:], strict=False):
        for ms in range(a, min(b, a + 25)):
            known[ms // 10 * 10] += good
            running[ms // 10 * 10] += good and value in {1, 3}
    carry = Carry()
    got_running: Counter[int] = Counter()
    got_known: Counter[int] = Counter()
    for a, b in itertools.pairwise(sorted({0, len(read), *(c % (len(read) + 1) for c in cuts)})):
        part = read[a:b]
        found, carry = time_in_state(
            ts[a:b],
            np.array([v for _, v, _ in part], np.int64),
            np.array([g for _, _, g in part], bool),
            carry,
            (1, 3),
            0.025,
            10,
        )
        for start, running_ms, known_ms in listed(found):
            got_running[start] += running_ms
            got_known[start] += known_ms
    assert +got_known == +known
    assert +got_running == +running


def test_the_interval_is_that_of_the_line_summary() -> None:
    assert INTERVAL_MS == SUMMARY_INTERVAL_MS
