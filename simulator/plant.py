"""The whole plant as a stream of messages and labels, a function of (scenario, anchor, time)."""

import heapq
from collections.abc import Mapping
from itertools import count
from typing import NamedTuple, assert_never

from simulator.devices import Device, Place
from simulator.electrical import Electrical
from simulator.faults import FaultClock
from simulator.labels import Label
from simulator.scenario import (
    DeviceSpec,
    ElectricalSpec,
    FaultSpec,
    GenericSpec,
    Scenario,
    SignalSpec,
    StateSpec,
    ValveSpec,
    VibrationSpec,
)
from simulator.sensors import Generic, Signal, State, Vibration
from simulator.valve import Valve


class Message(NamedTuple):
    """One message: the true time at which it is due, and what is published."""

    due_ms: int
    line: str
    topic: str
    payload: bytes


class DueLabel(NamedTuple):
    """A label, and the true time at which its fault begins."""

    due_ms: int
    label: Label


class Chunk(NamedTuple):
    """What happens in an interval: both in the order in which it is due."""

    messages: list[Message]
    labels: list[DueLabel]


class SimulatedPlant:
    """Every device of a scenario.

    `anchor_ms` is the moment that `start_s` of a fault counts from.
    """

    def __init__(self, scenario: Scenario, *, anchor_ms: int) -> None:
        self._devices = [
            _device(
                Place.of(topic, scenario.seed),
                spec,
                [
                    FaultClock(fault, seed=scenario.seed, place=place, anchor_ms=anchor_ms)
                    for place, fault in _own(scenario.faults, topic)
                ],
            )
            for topic, spec in scenario.devices().items()
        ]

    def chunk(
        self,
        start_ms: int,
        end_ms: int,
        *,
        from_ms: Mapping[str, int] | None = None,
        ongoing: bool = False,
    ) -> Chunk:
        """Messages and labels that are due in [start, end).

        Args:
            start_ms: first moment.
            end_ms: end, exclusive.
            from_ms: a line that is listed here says nothing before that moment.
            ongoing: also labels of faults that began before and are not over.
        """
        messages: list[list[Message]] = []
        labels: list[DueLabel] = []
        for device in self._devices:
            line, topic = device.place.line, device.place.topic
            begin_ms = max(start_ms, (from_ms or {}).get(line, start_ms))
            if begin_ms >= end_ms:
                continue
            batch = device.batch(begin_ms, end_ms)
            messages.append(
                [
                    Message(due, line, topic, payload)
                    for due, payload in zip(batch.due_ms.tolist(), batch.payloads, strict=True)
                ]
            )
            labels += [
                DueLabel(*found) for found in device.labels(begin_ms, end_ms, ongoing=ongoing)
            ]
        return Chunk(
            list(heapq.merge(*messages, key=_due)), sorted(labels, key=lambda label: label.due_ms)
        )


def _due(message: Message) -> int:
    return message.due_ms


def _own(faults: tuple[FaultSpec, ...], topic: str) -> list[tuple[int, FaultSpec]]:
    """A device's faults, each with its number among equals: other faults do not move it."""
    numbers: dict[str, count[int]] = {}
    return [
        (next(numbers.setdefault(fault.fault, count())), fault)
        for fault in faults
        if fault.device == topic
    ]


def _device(place: Place, spec: DeviceSpec, faults: list[FaultClock]) -> Device:
    match spec:
        case SignalSpec():
            return Signal(place, spec, faults)
        case StateSpec():
            return State(place, spec, faults)
        case VibrationSpec():
            return Vibration(place, spec, faults)
        case ValveSpec():
            return Valve(place, spec, faults)
        case ElectricalSpec():
            return Electrical(place, spec, faults)
        case GenericSpec():
            return Generic(place, spec, faults)
        case _:
            assert_never(spec)
