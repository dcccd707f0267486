import numpy as np
import pytest

from iiot_platform.report.content import Stretch
from iiot_platform.report.downsampling import (
    COLUMNS,
    breaks,
    column_of,
    drawable,
    kept,
    last_of_columns,
    stretches,
)

START = 1_795_338_000_000


@pytest.mark.parametrize("seed", range(3))
def test_no_extreme_of_any_column_is_left_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ts = START + np.cumsum(rng.integers(1, 40, 20_000))
    found = rng.normal(size=20_000)
    found[rng.random(20_000) < 0.1] = np.nan
    start, end = int(ts[0]), int(ts[-1]) + 1
    chosen = kept(ts, found, start, end)

    assert (np.diff(chosen) > 0).all()
    assert len(chosen) <= 4 * COLUMNS
    assert np.isfinite(found[chosen]).all()
    columns = column_of(ts, start, end)
    for column in range(COLUMNS):
        of_all = found[(columns == column) & np.isfinite(found)]
        of_kept = found[chosen][columns[chosen] == column]
        assert (of_kept.min(), of_kept.max()) == (of_all.min(), of_all.max())
        assert (of_kept[0], of_kept[-1]) == (of_all[0], of_all[-1])


def test_few_points_stay_as_they_are() -> None:
    ts = START + 1_000 * np.arange(100)
    assert kept(ts, np.arange(100.0), START, START + 100_000).tolist() == list(range(100))
    assert last_of_columns(ts, START, START + 100_000).tolist() == list(range(100))


def test_a_line_is_broken_where_rows_or_values_are_missing() -> None:
    ts = START + 1_000 * np.r_[np.arange(50), 100 + np.arange(50)]
    values = np.ones(100)
    values[10:30] = np.nan
    chosen = kept(ts, values, START, int(ts[-1]) + 1)
    broken = breaks(ts, chosen, valid=np.isfinite(values))

    assert chosen[broken].tolist() == [0, 30, 50]


def test_nothing_is_drawn_of_nothing() -> None:
    none = np.zeros(0, np.int64)
    assert kept(none, np.zeros(0), START, START + 1).tolist() == []
    assert breaks(none, none).tolist() == []
    assert stretches(none, none, START, hold_s=30) == []
    assert drawable([], START, START + 1) == ((), 0)


def test_a_state_holds_until_its_next_reading_and_is_unknown_in_a_gap() -> None:
    ts = START + 1_000 * np.array([0, 1, 2, 3, 100, 101])
    found = stretches(ts, np.array([1, 1, 2, 2, 2, 2]), START + 101_500, hold_s=30)

    assert found == [
        Stretch(START, START + 2_000, 1),
        Stretch(START + 2_000, START + 33_000, 2),
        Stretch(START + 100_000, START + 101_500, 2),
    ]


def test_of_fine_stretches_the_longest_of_each_column_is_shown() -> None:
    many = [
        Stretch(START + 100 * i, START + 100 * i + (70 if i % 2 else 100), 1 + i % 2)
        for i in range(10_000)
    ]
    shown, left = drawable(many, START, START + 1_000_000)

    assert shown == (Stretch(START, START + 1_000_000, 1),)
    assert left == 9_999
