import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulator.randomness import Draw


@given(
    first=st.integers(0, 2**40),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    width=st.integers(1, 9),
)
def test_cuts_do_not_change_a_bit(first: int, sizes: list[int], width: int) -> None:
    draw = Draw(7, "a", "b", width=width)
    whole = draw.normals(first, sum(sizes))
    starts = first + np.cumsum([0, *sizes[:-1]])
    parts = [draw.normals(int(start), size) for start, size in zip(starts, sizes, strict=True)]
    assert np.array_equal(whole, np.concatenate(parts))


def test_numbers_are_standard_normal() -> None:
    values = Draw(1, "x", width=3).normals(0, 20_000).ravel()
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02
    # kurtosis of a normal distribution is 3
    assert abs((values**4).mean() - 3) < 0.15


def test_uniforms_stay_in_their_interval_and_never_reach_zero() -> None:
    values = Draw(1, "x", width=4).uniforms(0, 10_000)
    assert values.min() > 0
    assert values.max() <= 1
    assert abs(values.mean() - 0.5) < 0.01


def test_streams_differ_by_seed_and_by_name() -> None:
    draws = [Draw(1, "a", width=1), Draw(2, "a", width=1), Draw(1, "b", width=1)]
    first = {float(draw.normals(5, 1)[0, 0]) for draw in draws}
    assert len(first) == 3
    assert np.array_equal(Draw(1, "a", width=1).normals(5, 1), draws[0].normals(5, 1))
