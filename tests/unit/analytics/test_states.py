"""State series: previous state and duration, whatever the batches."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.analytics import states
from iiot_platform.analytics.states import StateSeries
from iiot_platform.core.errors import AnalysisError


def rows_of(ts: Any, value: Any, good: Any = None) -> tuple[list[int], list[float]]:
    good = np.ones(len(ts), bool) if good is None else np.array(good, bool)
    rows, _ = states.update(StateSeries(), np.array(ts), np.array(value), good)
    return rows.previous_value.tolist(), rows.duration_s.tolist()


def test_a_change_ends_the_state_before() -> None:
    previous, duration_s = rows_of([0, 1_000, 2_500, 4_000, 4_001], [1, 1, 2, 2, 5])
    assert previous == [1, 1, 1, 2, 2]
    assert duration_s == [0, 0, 2.5, 0, 1.501]


def test_a_reading_of_bad_quality_ends_nothing() -> None:
    previous, duration_s = rows_of([0, 1, 2, 3, 4], [7, 1, 9, 1, 2], [0, 1, 0, 1, 1])
    assert previous == [7, 1, 1, 1, 1]
    assert duration_s == [0, 0, 0, 0, 0.003]


def naive(read: list[tuple[int, int, bool]]) -> tuple[list[int], list[float]]:
    previous, durations, state, since, ts = [], [], None, 0, 0
    for dt, value, good in read:
        ts += dt
        previous.append(value if state is None else state)
        durations.append(0.0)
        if good and state != value:
            if state is not None:
                durations[-1] = (ts - since) / 1000
            state, since = value, ts
    return previous, durations


readings = st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 2), st.booleans()), max_size=40)


@given(read=readings, cuts=st.lists(st.integers(0, 40), max_size=6))
def test_equals_the_naive_twin_whatever_the_batches(
    read: list[tuple[int, int, bool]], cuts: list[int]
) -> None:
    ts = np.cumsum([dt for dt, _, _ in read], dtype=np.int64)
    value = np.array([v for _, v, _ in read], np.int64)
    good = np.array([g for _, _, g in read], bool)
    _, final = states.update(StateSeries(), ts, value, good)
    state, previous, durations = StateSeries(), [], []
    for a, b in itertools.pairwise(sorted({0, len(read), *(c % (len(read) + 1) for c in cuts)})):
        rows, state = states.update(state, ts[a:b], value[a:b], good[a:b])
        assert states.decode_state(states.encode_state(state)) == state
        previous += rows.previous_value.tolist()
        durations += rows.duration_s.tolist()
    assert (previous, durations) == naive(read)
    assert state == final


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(AnalysisError, match="ts 2, value 3, good 2"):
        rows_of([0, 1], [1, 2, 3])


def test_a_damaged_state_is_refused() -> None:
    with pytest.raises(AnalysisError, match="StateSeries"):
        states.decode_state(b"\x93\x01")
