"""Where in a batch the records of each hour lie."""

from typing import Final

import numpy as np

from iiot_platform.engine.decode import Decoded
from iiot_platform.engine.partition import hour_of_each

SLACK: Final = 2_000
"""Records that are sooner read in vain than kept out by one more range."""


def offset_spans(decoded: Decoded, batch: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """Per hour, the offsets [lo, hi) that hold its records; empty for a batch that is short.

    A record counts in the hours of its event time and of its receipt, which it would belong to
    were it set aside, and in that of the time it claims. Ends that are near those of the batch
    are these, so that the ranges of consecutive batches join.
    """
    lo, hi = batch
    if hi - lo <= SLACK:
        return {}
    readings, aside = decoded.readings, decoded.quarantine
    times = [readings.ts, readings.received]
    offsets = [readings.offset, readings.offset]
    for found in ([q.received for q in aside], [q.claimed for q in aside]):
        times.append(np.array(found, np.int64))
        offsets.append(np.array([q.offset for q in aside], np.int64))
    at = np.concatenate(offsets)
    hours, index = np.unique(hour_of_each(np.concatenate(times)), return_inverse=True)
    first = np.full(len(hours), hi, np.int64)
    last = np.full(len(hours), lo, np.int64)
    np.minimum.at(first, index, at)
    np.maximum.at(last, index, at)
    first[first - lo <= SLACK] = lo
    last[hi - last <= SLACK] = hi - 1
    return {
        hour: (start, end + 1)
        for hour, start, end in zip(hours.tolist(), first.tolist(), last.tolist(), strict=True)
    }
