import numpy as np

from iiot_platform.analytics import vibration


def test_total_is_the_root_of_the_sum_of_squares() -> None:
    total = vibration.total(np.array([3.0, 1.0]), np.array([4.0, 2.0]), np.array([12.0, 2.0]))
    assert total.tolist() == [13.0, 3.0]


def test_what_is_no_number_in_one_axis_is_none_in_the_total() -> None:
    bad = np.array([np.nan, np.inf, 1e200])
    total = vibration.total(bad, np.zeros(3), np.zeros(3))
    assert not np.isfinite(total).any()
