"""What is measured over one cycle: current-time integral, inrush, coverage, unbalance."""

from typing import Final

import numpy as np

from iiot_platform.analytics.peaks import find_peaks
from iiot_platform.analytics.rows import Floats, Ints
from iiot_platform.core.clock import MS_PER_S

GAP_FACTOR: Final = 1.5
"""An interval longer than this many nominal intervals has lost samples."""


def trapezoid(ts: Ints, current: Floats) -> Floats:
    """Integral over the samples' own times, straight lines between them (A·s per phase).

    Args:
        ts: times of the samples in ms, int64[n].
        current: float64[n, phases] in A.
    """
    dt = (np.diff(ts) / MS_PER_S)[:, None]
    return _sum(dt * (current[1:] + current[:-1]) / 2)


def hold_last(ts: Ints, current: Floats, closed_ms: int) -> Floats:
    """Integral with each value held until the next, the last until the closing reading (A·s)."""
    dt = (np.diff(np.append(ts, closed_ms)) / MS_PER_S)[:, None]
    return _sum(dt * current)


def plain_sum(current: Floats) -> Floats:
    """Sum of the samples per phase, which the older scripts took for the integral."""
    return _sum(current)


def first_maximum(ts: Ints, current: Floats, window_ms: int) -> Floats:
    """Maximum per phase of the samples with ts < first ts + `window_ms`; the first included."""
    result: Floats = current[ts < ts[0] + window_ms].max(axis=0)
    return result


def kth_peak(current: Floats, k: int, height: float) -> float | None:
    """The k-th peak in time of at least `height` of one phase; None where there are fewer."""
    peaks = find_peaks(current, height)
    return float(current[peaks[k - 1]]) if len(peaks) >= k else None


def coverage(ts: Ints, nominal_ms: float | None) -> float:
    """Share of the time from first to last sample that samples cover.

    An interval of up to 1.5 nominal intervals is covered whole; a longer one, in which samples
    were lost, by one nominal interval.

    Args:
        ts: times of the samples in ms, int64[n].
        nominal_ms: nominal interval; None: the median of the cycle's own.
    """
    dt = np.diff(ts)
    total = int(dt.sum())
    if total <= 0:
        return 1.0
    nominal = float(np.median(dt)) if nominal_ms is None else nominal_ms
    covered = np.where(dt > GAP_FACTOR * nominal, np.minimum(dt, nominal), dt)
    return float(covered.sum() / total)


def asymmetry(mean_current: Floats) -> float | None:
    """100·Σ|In-Ī|/Ī in %, as the older scripts define it; None where Ī is not above 0."""
    mean = float(mean_current.sum()) / len(mean_current)
    return 100.0 * float(np.abs(mean_current - mean).sum()) / mean if mean > 0 else None


def nema_unbalance(mean_current: Floats) -> float | None:
    """100·max|In-Ī|/Ī in % (NEMA MG 1); None where Ī is not above 0."""
    mean = float(mean_current.sum()) / len(mean_current)
    return 100.0 * float(np.abs(mean_current - mean).max()) / mean if mean > 0 else None


def _sum(terms: Floats) -> Floats:
    """Column sums, added from the first row to the last."""
    return np.add.accumulate(terms, axis=0)[-1] if len(terms) else np.zeros(terms.shape[1])
