"""A motor that runs in cycles: three phases with inrush, powers and 42 harmonics each."""

from collections.abc import Iterator
from typing import ClassVar, Final, NamedTuple

import numpy as np

from simulator.devices import Device, Marked, Payload, Place
from simulator.faults import FaultClock, Occurrence
from simulator.quantities import SampleTimes
from simulator.randomness import Draw, Floats, Ints
from simulator.scenario import ElectricalSpec

HARMONICS: Final = 42
PHASES: Final = 3
_CYCLE_FAULTS: Final = ("phase_loss", "inrush_growth", "unbalance")
_RUNNING_SIGMA_S: Final = 0.1
_INRUSH_SIGMA: Final = 0.02
_LEVEL_SIGMA: Final = 0.005
_CURRENT_SIGMA: Final = 0.01
_VOLT_SIGMA: Final = 0.003
_IDLE_SHARE: Final = 0.01
_OTHER_PHASES_ON_LOSS: Final = 1.5
_HARMONIC_SCATTER: Final = 0.1


def _harmonic_profile() -> Floats:
    """Orders 1 to 42 in % of the fundamental, as a drive with a six-pulse rectifier gives them."""
    order = np.arange(1, HARMONICS + 1)
    strong = (order % 2 == 1) & (order % 3 != 0)
    profile = np.where(strong, 25.0 / order, 0.8 / order)
    profile[0] = 100.0
    return profile


class _Cycles(NamedTuple):
    """Cycles `first`, `first + 1`, …: arrays of one length, `factor` one column per phase."""

    first: int
    running: Ints
    inrush: Floats
    factor: Floats


class Electrical(Device):
    """A motor, sampled on a grid that divides its cycle.

    The first sample of a cycle stands still and carries the SynchPulse, then it runs, and the
    first sample after that closes the cycle; while it stands still one sample a second is sent.
    """

    kind: ClassVar = "electrical"

    def __init__(self, place: Place, spec: ElectricalSpec, faults: list[FaultClock]) -> None:
        super().__init__(place, faults)
        self._spec = spec
        self._per_cycle = round(spec.period_s * spec.rate_hz)
        self._idle_stride = max(round(spec.rate_hz), 1)
        self.slack_ms = int(3000 * spec.period_s)
        self._times = SampleTimes(
            place.seed, place.topic, interval_ms=1000.0 / spec.rate_hz, jitter_ms=spec.jitter_ms
        )
        self._cycle_noise = Draw(place.seed, place.topic, "cycle", width=3)
        self._noise = Draw(place.seed, place.topic, "noise", width=2 * PHASES)
        self._harmonic_noise = Draw(place.seed, place.topic, "harmonics", width=PHASES * HARMONICS)
        self._profile = np.tile(_harmonic_profile(), PHASES)

    def readings(self, start_ms: int, end_ms: int) -> tuple[Ints, list[Payload]]:
        """Readings in [start, end)."""
        first, times = self._times.within(start_ms, end_ms)
        if not len(times):
            return times, []
        index = np.arange(first, first + len(times))
        cycle, position = np.divmod(index, self._per_cycle)
        cycles = self._cycles(int(cycle[0]), int(cycle[-1]) + 1, self._occurrences(times))
        place = cycle - cycles.first
        since_close = position - cycles.running[place] - 1
        running = (position > 0) & (since_close < 0)
        sent = (
            running
            | (position == 0)
            | ((since_close >= 0) & (since_close % self._idle_stride == 0))
        )
        noise = self._noise.normals(first, len(times))[sent]
        uniform = self._harmonic_noise.uniforms(first, len(times))[sent]
        place, position, running = place[sent], position[sent], running[sent]
        current = self._currents(cycles, place, position, running, noise[:, :PHASES])
        volt = self._spec.volt_v * (1.0 + _VOLT_SIGMA * noise[:, PHASES:])
        harmonics = np.round(self._profile * (1.0 + _HARMONIC_SCATTER * (2.0 * uniform - 1.0)), 3)
        data = _electrical_data(
            np.round(current, 4), np.round(volt, 3), harmonics, self._spec.power_factor
        )
        return times[sent], self._payloads(data, running.tolist(), (position == 0).tolist())

    def marks(self, occurrence: Occurrence) -> Iterator[Marked]:
        """What an occurrence touches: whole cycles, named by the sample that closes each."""
        device = self.place.device
        if occurrence.fault.fault not in _CYCLE_FAULTS:
            yield Marked(device, "", occurrence.start_ms, occurrence.end_ms, None)
            return
        lo, hi = self._cycle_span(occurrence)
        running = self._cycles(lo, hi, []).running
        closing = np.arange(lo, hi) * self._per_cycle + running + 1
        rows = np.array([self._times.of(int(k), 1)[0] for k in closing], dtype=np.int64)
        start_ms, end_ms = (int(self._times.of(c * self._per_cycle, 1)[0]) for c in (lo, hi))
        grows = occurrence.fault.fault == "inrush_growth"
        yield Marked(device, "", start_ms, end_ms, None if grows else rows)

    def _payloads(
        self, data: list[Payload], running: list[bool], pulse: list[bool]
    ) -> list[Payload]:
        text = self._spec.state_as == "text"
        name = self.place.device
        return [
            {
                "DeviceName": name,
                "DeviceState": ("Running" if runs else "Stopped") if text else runs,
                "SynchPulse": pulses,
                "ElectricalData": values,
            }
            for values, runs, pulses in zip(data, running, pulse, strict=True)
        ]

    def _occurrences(self, times: Ints) -> list[Occurrence]:
        return list(self.active(int(times[0]), int(times[-1]) + 1, *_CYCLE_FAULTS))

    def _cycle_span(self, occurrence: Occurrence) -> tuple[int, int]:
        """The cycles that begin during an occurrence, at least one."""
        first = -(-self._times.first_at(occurrence.start_ms) // self._per_cycle)
        last = -(-self._times.first_at(occurrence.end_ms) // self._per_cycle)
        return first, max(last, first + 1)

    def _cycles(self, first: int, last: int, occurrences: list[Occurrence]) -> _Cycles:
        noise = self._cycle_noise.normals(first, last - first)
        seconds = self._spec.running_s + _RUNNING_SIGMA_S * noise[:, 0]
        running = np.rint(seconds * self._spec.rate_hz).astype(np.int64)
        running = np.clip(running, 1, self._per_cycle - 2)
        inrush = self._spec.inrush * (1.0 + _INRUSH_SIGMA * noise[:, 1])
        factor = np.repeat((1.0 + _LEVEL_SIGMA * noise[:, 2])[:, None], PHASES, axis=1)
        number = np.arange(first, last)
        for one in occurrences:
            lo, hi = self._cycle_span(one)
            inside = (number >= lo) & (number < hi)
            size, phase = one.fault.size, one.fault.phase - 1
            match one.fault.fault:
                case "phase_loss":
                    factor[inside] *= _OTHER_PHASES_ON_LOSS
                    factor[inside, phase] *= (1.0 - size) / _OTHER_PHASES_ON_LOSS
                case "unbalance":
                    factor[inside, phase] *= 1.0 + size
                case _:
                    inrush[inside] *= 1.0 + (size - 1.0) * (number[inside] - lo + 1) / (hi - lo)
        return _Cycles(first, running, inrush, factor)

    def _currents(
        self,
        cycles: _Cycles,
        place: Ints,
        position: Ints,
        running: np.ndarray[tuple[int], np.dtype[np.bool_]],
        noise: Floats,
    ) -> Floats:
        spec = self._spec
        since_start_s = (position - 1) / spec.rate_hz
        decay = np.exp(-np.maximum(since_start_s, 0.0) / spec.inrush_tau_s)
        shape = 1.0 + (cycles.inrush[place] - 1.0) * decay
        amplitude = np.where(running, shape, _IDLE_SHARE)[:, None] * cycles.factor[place]
        return spec.current_a * amplitude * (1.0 + _CURRENT_SIGMA * noise)


def _electrical_data(
    current: Floats, volt: Floats, harmonics: Floats, power_factor: float
) -> list[Payload]:
    """One `ElectricalData` object per sample; arrays (n, 3), harmonics (n, 3 * 42) in %."""
    apparent = current * volt
    active = apparent * power_factor
    reactive = np.sqrt(np.maximum(apparent**2 - active**2, 0.0))
    by_phase = harmonics.reshape(-1, PHASES, HARMONICS)
    current_thd = np.round(np.sqrt((by_phase[:, :, 1:] ** 2).sum(axis=2)), 3)
    volt_thd = np.round(0.1 * current_thd, 4)
    total = apparent.sum(axis=1)
    columns = {
        "ActPowerTot": np.round(active.sum(axis=1), 2),
        "ReactPowerTot": np.round(reactive.sum(axis=1), 2),
        "ApparPowerTot": np.round(total, 2),
        "PowerFact": np.where(total > 0, power_factor, 0.0),
        "PQF": np.round(1.0 - current_thd.mean(axis=1) / 100.0, 4),
    }
    for phase in range(PHASES):
        n = phase + 1
        columns |= {
            f"ActPowerL{n}": np.round(active[:, phase], 2),
            f"ReactPowerL{n}": np.round(reactive[:, phase], 2),
            f"ApparPowerL{n}": np.round(apparent[:, phase], 2),
            f"CurrentL{n}": current[:, phase],
            f"VoltL{n}": volt[:, phase],
            f"PowFactL{n}": np.where(apparent[:, phase] > 0, power_factor, 0.0),
            f"VoltL{n}_THD": volt_thd[:, phase],
            f"CurrentL{n}_THD": current_thd[:, phase],
        }
    names = [*columns, *(f"CurrentL{phase + 1}_Harm" for phase in range(PHASES))]
    lists = [column.tolist() for column in columns.values()]
    lists += [by_phase[:, phase].tolist() for phase in range(PHASES)]
    return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]
