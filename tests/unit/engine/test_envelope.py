import numpy as np
import pytest

from iiot_platform.engine.envelope import Envelope
from iiot_platform.engine.traces import Trace


def trace(values: list[float], flags: list[int], threshold: float = 3.0, std: float = 1.0) -> Trace:
    n = len(values)
    at = np.arange(n, dtype=np.int64) * 10
    anomaly = np.isin(np.arange(n), flags)
    column = np.ones(n)
    return Trace(
        at, np.array(values), anomaly, 5.0 * column, std * column, column, threshold * column
    )


def test_slices_keep_the_extremes_the_limits_and_the_flags() -> None:
    found = Envelope(0, 80, slices=4)
    found.add(trace([1, 9, 2, 3, 4, 5, 6, 7], [1, 2]), trace([1, 9, 2, 3, 4, 5, 6, 7], [2, 7], 2.0))
    assert found.low.tolist() == [1, 2, 4, 6]
    assert found.high.tolist() == [9, 3, 5, 7]
    assert found.bands["standing"][0].tolist() == [2.0] * 4
    assert found.bands["candidate"][1].tolist() == [7.0] * 4
    assert found.both.tolist() == [False, True, False, False]
    assert found.added.tolist() == [False, False, False, True]
    assert found.removed.tolist() == [True, False, False, False]


def test_rows_that_were_learnt_from_have_no_limits_and_pauses_no_values() -> None:
    found = Envelope(0, 160, slices=4)
    found.add(None, trace([1, 2, 3], [], threshold=0.0))
    assert found.filled.tolist() == [True, False, False, False]
    assert np.isnan(found.bands["candidate"][0]).all()
    assert found.span == pytest.approx((0.88, 3.12))


def test_limits_far_away_do_not_press_the_values_flat() -> None:
    near, far = Envelope(0, 80, slices=4), Envelope(0, 80, slices=4)
    near.add(None, trace([4, 6], []))
    far.add(None, trace([4, 6], [], std=1_000.0))
    assert near.span[0] < 4 - 0.1
    assert far.span == pytest.approx((3.88, 6.12))


def test_a_constant_value_has_a_span() -> None:
    found = Envelope(0, 80, slices=4)
    found.add(None, trace([0.0, 0.0], [], threshold=0.0))
    low, high = found.span
    assert low < 0 < high
    assert Envelope(0, 80, slices=4).span == (0, 1)
