"""Traces thinned for a picture: per slice of time the lowest and highest value, bands and flags.

A picture of a month has no more slices than one of an hour, so memory does not grow with time.
"""

from typing import Final

import numpy as np

from iiot_platform.engine.readings import Bools, Floats, Ints
from iiot_platform.engine.traces import Trace

SLICES: Final = 400


class Envelope:
    """One tested quantity over [start_ms, end_ms); arrays of one entry per slice, NaN: nothing.

    Attributes:
        low: lowest value.
        high: highest value.
        bands: per side (`standing`, `candidate`), lowest and highest limit of what is normal.
        both: slices with a row that both sides flag.
        added: slices with a row that the candidate alone flags.
        removed: slices with a row that stands flagged, but not under the candidate.
    """

    def __init__(self, start_ms: int, end_ms: int, slices: int = SLICES) -> None:
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.slices = slices
        self.low = np.full(slices, np.nan)
        self.high = np.full(slices, np.nan)
        self.bands = {
            side: (np.full(slices, np.nan), np.full(slices, np.nan))
            for side in ("standing", "candidate")
        }
        self.both = np.zeros(slices, np.bool_)
        self.added = np.zeros(slices, np.bool_)
        self.removed = np.zeros(slices, np.bool_)

    def add(self, standing: Trace | None, candidate: Trace | None) -> None:
        """Takes the rows of one hour."""
        flags: dict[str, Ints] = {}
        for side, trace in (("standing", standing), ("candidate", candidate)):
            flags[side] = np.zeros(0, np.int64)
            if trace is None:
                continue
            at = self._slice_of(trace.ts)
            np.fmin.at(self.low, at, trace.value)
            np.fmax.at(self.high, at, trace.value)
            tested = ~trace.learning
            reach = (trace.z_score_thresh * trace.model_std)[tested]
            low, high = self.bands[side]
            np.fmin.at(low, at[tested], trace.model_avg[tested] - reach)
            np.fmax.at(high, at[tested], trace.model_avg[tested] + reach)
            flags[side] = trace.ts[trace.anomaly]
        old, new = flags["standing"], flags["candidate"]
        self.both[self._slice_of(np.intersect1d(old, new))] = True
        self.added[self._slice_of(np.setdiff1d(new, old))] = True
        self.removed[self._slice_of(np.setdiff1d(old, new))] = True

    @property
    def filled(self) -> Bools:
        """Where there is any value."""
        found: Bools = ~np.isnan(self.low)
        return found

    @property
    def span(self) -> tuple[float, float]:
        """The values' range with the limits of what is normal, as far as they are near.

        A limit that lies far outside the values would press them flat; it is cut off.
        """
        if not self.filled.any():
            return 0.0, 1.0
        low, high = float(np.nanmin(self.low)), float(np.nanmax(self.high))
        room = 0.75 * (high - low) or abs(high) * 0.05 or 1.0
        limits = np.concatenate([limit for band in self.bands.values() for limit in band])
        near: Floats = limits[(limits >= low - room) & (limits <= high + room)]
        lowest, highest = (
            (min(low, float(near.min())), max(high, float(near.max())))
            if len(near)
            else (low, high)
        )
        margin = 0.06 * (highest - lowest) or room
        return lowest - margin, highest + margin

    def _slice_of(self, ts: Ints) -> Ints:
        places: Ints = (ts - self.start_ms) * self.slices // (self.end_ms - self.start_ms)
        return np.clip(places, 0, self.slices - 1)
