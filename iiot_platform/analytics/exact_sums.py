"""Mean and standard deviation of floats without any rounding before the last.

The results are those of `statistics.mean` and `statistics.stdev` (Python 3.11 and later), but a
value enters and leaves at a constant cost: a float is an integer times a power of two, so sums of
values and of squares are kept as integers.
"""

import math
from collections.abc import Iterable
from typing import Final

_SQRT_BITS: Final = 109
"""Bits of an integer root that make its quotient round as the true root does (2·53 + 3)."""


class ExactSums:
    """Sums over a window of finite floats."""

    def __init__(self, coming: Iterable[float]) -> None:
        """Sums over nothing yet; no value outside `coming` may ever be added."""
        denominators = (value.as_integer_ratio()[1] for value in coming)
        self._shift = max((d.bit_length() - 1 for d in denominators), default=0)
        self._n = 0
        self._sum = 0
        self._squares = 0

    def add(self, value: float) -> None:
        """Let a value enter."""
        whole = self._whole(value)
        self._n += 1
        self._sum += whole
        self._squares += whole * whole

    def remove(self, value: float) -> None:
        """Let a value that was added leave."""
        whole = self._whole(value)
        self._n -= 1
        self._sum -= whole
        self._squares -= whole * whole

    def mean(self) -> float:
        """The mean, rounded once."""
        return self._sum / (self._n << self._shift)

    def stdev(self) -> float:
        """The sample standard deviation (n - 1), rounded once."""
        n = self._n
        deviations = n * self._squares - self._sum * self._sum
        return _root(deviations, (n * (n - 1)) << (2 * self._shift))

    def _whole(self, value: float) -> int:
        numerator, denominator = value.as_integer_ratio()
        return numerator << (self._shift + 1 - denominator.bit_length())


def _root(numerator: int, denominator: int) -> float:
    """The square root of a fraction, correctly rounded (round to odd, then to nearest)."""
    half = (numerator.bit_length() - denominator.bit_length() - _SQRT_BITS) // 2
    if half >= 0:
        return (_odd_root(numerator, denominator << 2 * half) << half) / 1
    return _odd_root(numerator << -2 * half, denominator) / (1 << -half)


def _odd_root(numerator: int, denominator: int) -> int:
    root = math.isqrt(numerator // denominator)
    return root | (root * root * denominator != numerator)
