"""What every device of the plant has in common, whatever it measures."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np

from simulator.faults import FaultClock, Occurrence
from simulator.labels import Label
from simulator.randomness import Ints

Payload = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class Place(NamedTuple):
    """Where a device stands, and what makes its numbers its own."""

    line: str
    machine: str
    device: str
    seed: int

    @classmethod
    def of(cls, topic: str, seed: int) -> "Place":
        """The place that publishes to `<line>/<machine>/<device>`."""
        line, machine, device = topic.split("/")
        return cls(line, machine, device, seed)

    @property
    def topic(self) -> str:
        """The topic that the device publishes to."""
        return f"{self.line}/{self.machine}/{self.device}"


class Batch(NamedTuple):
    """Messages of one device: when they are due (true time), and what they say."""

    due_ms: Ints
    payloads: list[bytes]


class Marked(NamedTuple):
    """What an occurrence touches in one series, in true time."""

    series: str
    operation: str
    start_ms: int
    end_ms: int
    rows_ms: Ints | None


class Device(ABC):
    """One device: its messages and its labels, both a function of time alone."""

    kind: ClassVar[str]
    slack_ms: int
    """An occurrence may touch samples this long after its end."""

    def __init__(self, place: Place, faults: list[FaultClock]) -> None:
        self.place = place
        self._faults = faults

    @abstractmethod
    def readings(self, start_ms: int, end_ms: int) -> tuple[Ints, list[Payload]]:
        """Readings with a true time in [start, end), in order, without their time stamps."""

    @abstractmethod
    def marks(self, occurrence: Occurrence) -> Iterator[Marked]:
        """What an occurrence touches."""

    def batch(self, start_ms: int, end_ms: int) -> Batch:
        """The messages that are due in [start, end)."""
        times, payloads = self.readings(start_ms, end_ms)
        stamps = self._stamped(times)
        kept = self._reported(times)
        names = {"LineName": self.place.line, "MachineName": self.place.machine}
        encoded = [
            _encode({**names, **payload, "TimeStamp": stamp})
            for payload, stamp, keep in zip(payloads, stamps.tolist(), kept.tolist(), strict=True)
            if keep
        ]
        return Batch(times[kept], encoded)

    def labels(self, start_ms: int, end_ms: int, *, ongoing: bool) -> Iterator[tuple[int, Label]]:
        """Labels of faults that begin in [start, end), each with the moment it begins.

        With `ongoing` also of those that began before `start` and are not over.
        """
        for clock in self._faults:
            for occurrence in clock.overlapping(start_ms, end_ms):
                if occurrence.start_ms >= start_ms or ongoing:
                    for mark in self.marks(occurrence):
                        yield max(occurrence.start_ms, start_ms), self._label(occurrence, mark)

    def active(self, start_ms: int, end_ms: int, *names: str) -> Iterator[Occurrence]:
        """Occurrences of the named faults that may touch [start, end)."""
        for clock in self._faults:
            if clock.fault.fault in names:
                yield from clock.overlapping(start_ms - self.slack_ms, end_ms)

    def _during(self, times: Ints, name: str) -> Iterator[tuple[Occurrence, np.ndarray[Any, Any]]]:
        if len(times):
            for one in self.active(int(times[0]), int(times[-1]) + 1, name):
                yield one, (times >= one.start_ms) & (times < one.end_ms)

    def _stamped(self, times: Ints) -> Ints:
        stamps = times.copy()
        for one, inside in self._during(times, "clock_offset"):
            stamps[inside] += round(1000 * one.fault.size)
        return stamps

    def _reported(self, times: Ints) -> np.ndarray[Any, np.dtype[np.bool_]]:
        kept = np.ones(len(times), dtype=np.bool_)
        for _, inside in self._during(times, "dropout"):
            kept &= ~inside
        return kept

    def _label(self, occurrence: Occurrence, mark: Marked) -> Label:
        bounds = np.array([mark.start_ms, max(mark.end_ms - 1, mark.start_ms)], dtype=np.int64)
        start_ms, last_ms = self._stamped(bounds).tolist()
        rows = None if mark.rows_ms is None else tuple(self._stamped(mark.rows_ms).tolist())
        return Label(
            line=self.place.line,
            machine=self.place.machine,
            device=self.place.device,
            series=mark.series,
            operation=mark.operation,
            kind=self.kind,
            fault=occurrence.fault.fault,
            start_ms=start_ms,
            end_ms=last_ms + 1,
            ts_ms=rows,
        )
