"""Exact sums, against the standard library."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.analytics.exact_sums import ExactSums

finite = st.floats(-1e100, 1e100)


@given(left=st.lists(finite, max_size=5), window=st.lists(finite, min_size=2, max_size=12))
def test_equals_statistics_after_values_have_left(left: list[float], window: list[float]) -> None:
    sums = ExactSums((*left, *window))
    for value in (*left, *window):
        sums.add(value)
    for value in left:
        sums.remove(value)
    assert sums.mean() == statistics.mean(window)
    assert sums.stdev() == statistics.stdev(window)


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_the_root_is_rounded_once(offset: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        window = (offset + rng.normal(size=5)).tolist()
        sums = ExactSums(window)
        for value in window:
            sums.add(value)
        assert sums.stdev() == statistics.stdev(window)
