"""Sampling times, and numbers that vary around a mean, with what faults do to them."""

import math
from typing import NamedTuple

import numpy as np

from simulator.faults import Occurrence
from simulator.randomness import Draw, Floats, Ints
from simulator.scenario import QuantitySpec

_STEPS_PER_SIGMA = 3
"""Decimals behind the first digit of sigma: a resolution of sigma / 1000 or finer."""


class SampleTimes:
    """The times at which a device samples: irregular by a few ms, strictly increasing."""

    def __init__(self, seed: int, topic: str, *, interval_ms: float, jitter_ms: int) -> None:
        self._interval_ms = interval_ms
        self._jitter_ms = min(jitter_ms, int(interval_ms // 4))
        self._jitter = Draw(seed, topic, "jitter", width=1)
        self._phase_ms = int(Draw(seed, topic, "phase", width=1).uniforms(0, 1)[0, 0] * interval_ms)

    def of(self, first: int, count: int) -> Ints:
        """Unix ms of the samples `first`, `first + 1`, …."""
        index = np.arange(first, first + count, dtype=np.float64)
        times = np.floor(index * self._interval_ms).astype(np.int64) + self._phase_ms
        if self._jitter_ms:
            uniform = self._jitter.uniforms(first, count)[:, 0]
            times += np.floor(uniform * self._jitter_ms).astype(np.int64)
        return times

    def first_at(self, ms: int) -> int:
        """The first sample at or after a moment."""
        guess = max(math.floor((ms - self._phase_ms) / self._interval_ms) - 1, 0)
        return guess + int(np.searchsorted(self.of(guess, 4), ms))

    def within(self, start_ms: int, end_ms: int) -> tuple[int, Ints]:
        """The first sample in [start, end), and the times of all of them."""
        first = self.first_at(start_ms)
        return first, self.of(first, max(self.first_at(end_ms) - first, 0))


class Span(NamedTuple):
    """An occurrence in samples: [first, last)."""

    occurrence: Occurrence
    first: int
    last: int


class Quantity:
    """One number of a device, by sample index."""

    def __init__(self, spec: QuantitySpec, times: SampleTimes, seed: int, *names: str) -> None:
        self.spec = spec
        self.decimals = max(0, _STEPS_PER_SIGMA - math.floor(math.log10(spec.sigma)))
        self._times = times
        self._noise = Draw(seed, *names, "noise", width=1)

    def values(self, first: int, times: Ints, spans: list[Span]) -> Floats:
        """The values of the samples from `first` on, faults included, rounded."""
        sigma = self.spec.sigma
        noise = sigma * self._noise.normals(first, len(times))[:, 0]
        values = self.spec.mean + noise
        if self.spec.trend_sigma:
            period_ms = round(1000 * self.spec.trend_period_s)
            angle = 2.0 * np.pi * ((times % period_ms) / period_ms)
            values += self.spec.trend_sigma * sigma * np.sin(angle)
        index = np.arange(first, first + len(times))
        for span in spans:
            inside = (index >= span.first) & (index < span.last)
            if inside.any():
                values[inside] = self._disturbed(values[inside], noise[inside], index[inside], span)
        return np.round(values, self.decimals)

    def _disturbed(self, values: Floats, noise: Floats, index: Ints, span: Span) -> Floats:
        occurrence, first, last = span
        fault = occurrence.fault
        step = occurrence.sign * fault.size * self.spec.sigma
        match fault.fault:
            case "spike" | "level_shift":
                return values + step
            case "burst":
                return values + step * np.where((index - first) % 2 == 0, 1.0, -1.0)
            case "drift":
                return values + step * ((index - first + 1) / (last - first))
            case "noise":
                return values + (fault.size - 1.0) * noise
            case "stuck":
                return np.full_like(values, self.values(first, self._times.of(first, 1), [])[0])
            case _:
                return values
