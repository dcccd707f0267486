"""Peaks, against scipy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.analytics.peaks import find_peaks


@given(
    x=st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.0, 2.5, 3.0]), max_size=40),
    height=st.sampled_from([-2.0, 0.0, 1.0, 2.5]),
)
def test_equals_scipy_plateaus_included(x: list[float], height: float) -> None:
    import scipy.signal  # noqa: PLC0415 - two seconds that no other test needs

    samples = np.array(x, np.float64)
    expected, _ = scipy.signal.find_peaks(samples, height=height)
    assert find_peaks(samples, height).tolist() == expected.tolist()


def test_the_first_sample_is_never_a_peak() -> None:
    assert find_peaks(np.array([9.0, 1.0, 2.0, 1.0, 9.0]), 0.0).tolist() == [2]


def test_of_a_plateau_the_middle_counts() -> None:
    assert find_peaks(np.array([0.0, 3, 3, 3, 3, 0]), 0.0).tolist() == [2]
