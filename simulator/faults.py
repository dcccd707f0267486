"""When faults happen: a function of the scenario, its anchor and time, never of the run."""

from collections.abc import Iterator
from typing import NamedTuple

from simulator.randomness import Draw
from simulator.scenario import FaultSpec

_NO_NUMBER = 0


class Occurrence(NamedTuple):
    """One time that a fault happens; the interval is half-open, in true (not device) time.

    Attributes:
        sign: +1 or -1, seeded.
    """

    fault: FaultSpec
    start_ms: int
    end_ms: int
    sign: float


class FaultClock:
    """The occurrences of one fault."""

    def __init__(self, fault: FaultSpec, *, seed: int, place: int, anchor_ms: int) -> None:
        self.fault = fault
        self._draw = Draw(seed, fault.device, fault.fault, str(place), width=2)
        self._anchor_ms = anchor_ms

    def overlapping(self, start_ms: int, end_ms: int) -> Iterator[Occurrence]:
        """Occurrences that overlap [start, end), in order; one without length is a point."""
        if self.fault.every_s is None:
            once = self.fault.start_ms
            if once is None:
                once = self._anchor_ms + round(1000 * (self.fault.start_s or 0.0))
            found = iter([self._occurrence(_NO_NUMBER, once)])
        else:
            found = self._repeated(round(1000 * self.fault.every_s), start_ms, end_ms)
        for one in found:
            if one.start_ms < end_ms and max(one.end_ms, one.start_ms + 1) > start_ms:
                yield one

    def _repeated(self, every_ms: int, start_ms: int, end_ms: int) -> Iterator[Occurrence]:
        first, last = max(start_ms // every_ms - 1, 0), end_ms // every_ms + 1
        for number in range(first, last + 1):
            if self.fault.offset_s is None:
                room = every_ms - self.fault.length_ms
                within = int(room * self._draw.uniforms(number, 1)[0, 1]) % max(room, 1)
            else:
                within = round(1000 * self.fault.offset_s)
            yield self._occurrence(number, number * every_ms + within)

    def _occurrence(self, number: int, start_ms: int) -> Occurrence:
        up = self._draw.uniforms(number, 1)[0, 0] > 0.5  # noqa: PLR2004 - a coin
        return Occurrence(
            self.fault, start_ms, start_ms + self.fault.length_ms, 1.0 if up else -1.0
        )
