"""Devices that sample numbers or a state at a rate: signal, state, vibration, generic."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from simulator.devices import Device, Marked, Payload, Place
from simulator.faults import FaultClock, Occurrence
from simulator.quantities import Quantity, SampleTimes, Span
from simulator.randomness import Ints
from simulator.scenario import (
    GenericSpec,
    QuantitySpec,
    Sampled,
    SignalSpec,
    StateSpec,
    VibrationSpec,
)

_VALUE_FAULTS = ("spike", "burst", "drift", "level_shift", "noise", "stuck")
_ROWS_ARE_WRONG = frozenset({"spike", "burst", "level_shift"})
"""Faults that make every row wrong, each by its whole magnitude."""


class Sampler(Device):
    """A device that samples at a rate."""

    def __init__(self, place: Place, spec: Sampled, faults: list[FaultClock]) -> None:
        super().__init__(place, faults)
        interval_ms = 1000.0 / spec.rate_hz
        self.times = SampleTimes(
            place.seed, place.topic, interval_ms=interval_ms, jitter_ms=spec.jitter_ms
        )
        self.slack_ms = int(2 * interval_ms) + 1

    def spans(self, start_ms: int, end_ms: int) -> list[Span]:
        """Faults of the value that touch [start, end), in samples."""
        return [self.span(one) for one in self.active(start_ms, end_ms, *_VALUE_FAULTS)]

    def span(self, occurrence: Occurrence) -> Span:
        """An occurrence in samples: at least one, a spike exactly one."""
        first = self.times.first_at(occurrence.start_ms)
        if occurrence.fault.fault == "spike":
            return Span(occurrence, first, first + 1)
        return Span(occurrence, first, max(self.times.first_at(occurrence.end_ms), first + 1))

    def marks(self, occurrence: Occurrence) -> Iterator[Marked]:
        """What an occurrence touches."""
        name = occurrence.fault.fault
        if name in _VALUE_FAULTS:
            _, first, last = self.span(occurrence)
            rows = self.times.of(first, last - first)
            bounds = (int(rows[0]), int(rows[-1]) + 1)
        else:
            rows = np.empty(0, dtype=np.int64)
            bounds = (occurrence.start_ms, occurrence.end_ms)
        for series in self.touched(occurrence):
            yield Marked(series, "", *bounds, rows if name in _ROWS_ARE_WRONG else None)

    def touched(self, occurrence: Occurrence) -> tuple[str, ...]:  # noqa: ARG002 - see Generic
        """The series that an occurrence touches."""
        return (self.place.device,)


class Signal(Sampler):
    """A sensor with one value."""

    kind: ClassVar = "signal"

    def __init__(self, place: Place, spec: SignalSpec, faults: list[FaultClock]) -> None:
        super().__init__(place, spec, faults)
        self._value = Quantity(spec, self.times, place.seed, place.topic)

    def readings(self, start_ms: int, end_ms: int) -> tuple[Ints, list[Payload]]:
        """Readings in [start, end)."""
        first, times = self.times.within(start_ms, end_ms)
        values = self._value.values(first, times, self.spans(start_ms, end_ms))
        name = self.place.device
        return times, [{"SensorName": name, "SensorValue": value} for value in values.tolist()]


class State(Sampler):
    """A state that walks through a fixed sequence, anchored at the Unix epoch."""

    kind: ClassVar = "state"

    def __init__(self, place: Place, spec: StateSpec, faults: list[FaultClock]) -> None:
        super().__init__(place, spec, faults)
        self._values = np.array([value for value, _ in spec.sequence], dtype=np.int64)
        self._ends = np.cumsum([max(round(1000 * seconds), 1) for _, seconds in spec.sequence])

    def readings(self, start_ms: int, end_ms: int) -> tuple[Ints, list[Payload]]:
        """Readings in [start, end)."""
        first, times = self.times.within(start_ms, end_ms)
        values = self._at(times)
        index = np.arange(first, first + len(times))
        for span in self.spans(start_ms, end_ms):
            held = self._at(self.times.of(span.first, 1))[0]
            values[(index >= span.first) & (index < span.last)] = held
        name = self.place.device
        return times, [{"StateName": name, "StateValue": value} for value in values.tolist()]

    def _at(self, times: Ints) -> Ints:
        place = np.searchsorted(self._ends, times % self._ends[-1], side="right")
        states: Ints = self._values[place]
        return states


class Vibration(Sampler):
    """A vibration sensor; faults touch all three axes."""

    kind: ClassVar = "vibration"

    def __init__(self, place: Place, spec: VibrationSpec, faults: list[FaultClock]) -> None:
        super().__init__(place, spec, faults)
        self._axes = [
            Quantity(
                QuantitySpec(mean=mean, sigma=spec.sigma), self.times, place.seed, place.topic, a
            )
            for mean, a in zip(spec.mean, "xyz", strict=True)
        ]
        self._temperature = spec.temperature and Quantity(
            spec.temperature, self.times, place.seed, place.topic, "temperature"
        )
        self._alias = spec.naming == "alias"

    def readings(self, start_ms: int, end_ms: int) -> tuple[Ints, list[Payload]]:
        """Readings in [start, end)."""
        first, times = self.times.within(start_ms, end_ms)
        spans = self.spans(start_ms, end_ms)
        # an RMS is never negative, however the fault pulls
        axes = [np.abs(axis.values(first, times, spans)) for axis in self._axes]
        prefix = "VibAccelTotal_RMS_" if self._alias else "VibAccelTotRms"
        columns = {f"{prefix}{a}": values for a, values in zip("XYZ", axes, strict=True)}
        if self._alias:
            total = np.sqrt(axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2)
            columns["VibrationLevel"] = np.round(total, self._axes[0].decimals)
        if self._temperature:
            columns["SensorTemperature"] = self._temperature.values(first, times, [])
        named = {"SensorName": np.full(len(times), self.place.device), **columns}
        return times, _rows(named)


class Generic(Sampler):
    """A device that sends a plain object of numbers; a fault touches one of its fields."""

    kind: ClassVar = "generic"

    def __init__(self, place: Place, spec: GenericSpec, faults: list[FaultClock]) -> None:
        super().__init__(place, spec, faults)
        self._fields = {
            name: Quantity(field, self.times, place.seed, place.topic, name)
            for name, field in spec.fields.items()
        }
        self._first_field = next(iter(spec.fields))

    def readings(self, start_ms: int, end_ms: int) -> tuple[Ints, list[Payload]]:
        """Readings in [start, end)."""
        first, times = self.times.within(start_ms, end_ms)
        spans = self.spans(start_ms, end_ms)
        columns = {
            name: field.values(first, times, [s for s in spans if self._field(s[0]) == name])
            for name, field in self._fields.items()
        }
        return times, _rows(columns)

    def touched(self, occurrence: Occurrence) -> tuple[str, ...]:
        """The series that an occurrence touches; all where no value is concerned."""
        if occurrence.fault.fault in _VALUE_FAULTS:
            return (f"{self.place.device}.{self._field(occurrence)}",)
        return tuple(f"{self.place.device}.{name}" for name in self._fields)

    def _field(self, occurrence: Occurrence) -> str:
        return occurrence.fault.field or self._first_field


def _rows(columns: Mapping[str, NDArray[np.generic]]) -> list[Payload]:
    names = tuple(columns)
    lists = [values.tolist() for values in columns.values()]
    return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]
