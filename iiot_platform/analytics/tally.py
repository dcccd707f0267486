"""Flags that have been given, and which of them may alert: the part that detectors share."""

import msgspec
import numpy as np

from iiot_platform.analytics.rows import Bools, Floats, Int8s


class Tally(msgspec.Struct, frozen=True):
    """What earlier flags mean for later rows.

    Attributes:
        flags: the last `rate_window` flags, oldest first, one byte each.
        refractory: rows for which alerts are still held back.
        acknowledged_ms: event time of the last acknowledgement that took effect.
    """

    flags: bytes = b""
    refractory: int = 0
    acknowledged_ms: int | None = None


def ratios(flags: bytes, anomaly: Int8s, tested: Bools, rate_window: int) -> tuple[Floats, bytes]:
    """Share of anomalies in the last `rate_window` flags, and the flags kept.

    Only tested values carry a flag; the share is taken over the flags present and is 0 where
    there are none. Counts are integers, so that the cut of batches can not show.

    Args:
        flags: the flags before the first value.
        anomaly: int8[n].
        tested: bool[n].
        rate_window: flags that a share is taken over.

    Returns:
        float64[n + 1], the share before the first value and behind each; the flags kept.
    """
    before = np.frombuffer(flags[-rate_window:], np.uint8)
    every_tested = bool(tested.all())
    new = anomaly if every_tested else anomaly[tested]
    every = np.concatenate((before, new.view(np.uint8)))
    if not every.any():
        return np.zeros(len(anomaly) + 1), every[-rate_window:].tobytes()
    count = np.zeros(len(every) + 1, np.int64)
    np.cumsum(every, out=count[1:])
    recent = count.copy()
    recent[rate_window:] -= count[:-rate_window]
    present = np.minimum(np.arange(len(count)), rate_window)
    present[0] = 1
    share = (recent / present)[len(before) :]
    if not every_tested:
        share = share[np.concatenate(([0], np.cumsum(tested, dtype=np.int64)))]
    return share, every[-rate_window:].tobytes()


def alerts(anomaly: Int8s, remaining: int, refractory: int) -> tuple[Int8s, int]:
    """Which anomalies may alert, and for how many further rows alerts are held back.

    An alert holds back those of the next `refractory` rows of its series, whatever their
    quality; an anomaly held back does not prolong this, so that a lasting fault alerts again.
    """
    alert = np.zeros(len(anomaly), np.int8)
    silent_until = remaining
    for row in np.flatnonzero(anomaly).tolist():
        if row >= silent_until:
            alert[row] = 1
            silent_until = row + 1 + refractory
    return alert, max(silent_until - len(anomaly), 0)
