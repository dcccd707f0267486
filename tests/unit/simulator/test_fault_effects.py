"""Every fault is visible in the data exactly where its label says, and nowhere else.

The same plant is played with and without the fault: what differs must be what is labelled.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from simulator.labels import Label
from simulator.plant import SimulatedPlant
from simulator.scenario_file import parse_scenario

T0 = 1_790_000_000_000
PLANT = """
name: faulty
lines:
  l:
    m:
      signal: {{kind: signal, rate_hz: 2, mean: 50, sigma: 0.5}}
      state: {{kind: state, rate_hz: 2, sequence: [[1, 7], [2, 7]]}}
      vibration: {{kind: vibration, rate_hz: 2, mean: [0.4, 0.5, 0.6], sigma: 0.01}}
      alias: {{kind: vibration, rate_hz: 2, mean: [0.4, 0.5, 0.6], sigma: 0.01, naming: alias}}
      valve: {{kind: valve, period_s: 5}}
      motor: {{kind: electrical, period_s: 12, running_s: 8, current_a: 10}}
      climate:
        kind: generic
        fields: {{Temperature: {{mean: 20, sigma: 0.1}}, Humidity: {{mean: 40, sigma: 0.3}}}}
faults: [{fault}]
"""
LENGTH_MS = 120_000

Payload = dict[str, Any]


class Played(NamedTuple):
    clean: dict[int, Payload]
    faulty: dict[int, Payload]
    due: list[int]
    labels: list[Label]

    def changed(self) -> set[int]:
        return {ts for ts, payload in self.faulty.items() if self.clean.get(ts) != payload}


def play(device: str, fault: str, **settings: float | str) -> Played:
    extra = "".join(f", {name}: {value}" for name, value in settings.items())
    text = f"{{fault: {fault}, device: l/m/{device}, start_s: 30{extra}}}"
    sides: list[dict[int, Payload]] = []
    for faults in ("", text):
        scenario = parse_scenario(PLANT.format(fault=faults), source="test")
        chunk = SimulatedPlant(scenario, anchor_ms=T0).chunk(T0, T0 + LENGTH_MS)
        payloads = [json.loads(m.payload) for m in chunk.messages if m.topic == f"l/m/{device}"]
        sides.append({p["TimeStamp"]: p for p in payloads})
    due = [m.due_ms for m in chunk.messages if m.topic == f"l/m/{device}"]
    return Played(sides[0], sides[1], due, [found.label for found in chunk.labels])


def only_label(played: Played) -> Label:
    (label,) = played.labels
    return label


VALUES: dict[str, Callable[[Payload], float]] = {
    "signal": lambda p: p["SensorValue"] / 0.5,
    "vibration": lambda p: p["VibAccelTotRmsX"] / 0.01,
    "alias": lambda p: p["VibAccelTotal_RMS_Z"] / 0.01,
    "climate": lambda p: p["Temperature"] / 0.1,
}


@pytest.mark.parametrize("device", VALUES)
@pytest.mark.parametrize("fault", ["spike", "burst", "level_shift"])
def test_each_labelled_row_is_off_by_the_magnitude(device: str, fault: str) -> None:
    played = play(device, fault)
    label = only_label(played)
    assert label.ts_ms is not None
    assert played.changed() == set(label.ts_ms)
    assert len(label.ts_ms) == 1 if fault == "spike" else len(label.ts_ms) > 4
    assert label.start_ms == label.ts_ms[0]
    assert label.end_ms == label.ts_ms[-1] + 1
    size = 12 if fault == "level_shift" else 14
    for ts in label.ts_ms:
        off = VALUES[device](played.faulty[ts]) - VALUES[device](played.clean[ts])
        assert abs(off) == pytest.approx(size, abs=0.01)
    assert label.series == ("climate.Temperature" if device == "climate" else device)


def test_a_field_can_be_chosen() -> None:
    played = play("climate", "spike", field="Humidity")
    assert only_label(played).series == "climate.Humidity"
    (ts,) = played.changed()
    assert played.faulty[ts]["Temperature"] == played.clean[ts]["Temperature"]


def test_drift_grows_to_its_magnitude_and_ends() -> None:
    played = play("signal", "drift")
    label = only_label(played)
    changed = sorted(played.changed())
    off = [
        abs(VALUES["signal"](played.faulty[t]) - VALUES["signal"](played.clean[t])) for t in changed
    ]
    assert (changed[0], changed[-1] + 1) == (label.start_ms, label.end_ms)
    assert off == sorted(off)
    assert off[-1] == pytest.approx(14, abs=0.01)


def test_noise_grows_by_its_factor() -> None:
    played = play("signal", "noise")
    label = only_label(played)
    assert {t for t in played.faulty if label.start_ms <= t < label.end_ms} == played.changed()
    for ts in played.changed():
        clean = played.clean[ts]["SensorValue"] - 50
        assert played.faulty[ts]["SensorValue"] - 50 == pytest.approx(6 * clean, abs=0.01)


@pytest.mark.parametrize(("device", "field"), [("signal", "SensorValue"), ("state", "StateValue")])
def test_a_stuck_value_stays(device: str, field: str) -> None:
    played = play(device, "stuck")
    label = only_label(played)
    inside = {p[field] for t, p in played.faulty.items() if label.start_ms <= t < label.end_ms}
    assert len(inside) == 1
    assert len(played.changed()) > 5
    assert all(label.start_ms <= t < label.end_ms for t in played.changed())


@pytest.mark.parametrize("device", ["signal", "state", "vibration", "valve", "motor", "climate"])
def test_dropout_is_silence_and_nothing_else(device: str) -> None:
    played = play(device, "dropout")
    missing = set(played.clean) - set(played.faulty)
    assert missing == {t for t in played.clean if T0 + 30_000 <= t < T0 + 40_000}
    assert missing
    assert not played.changed()
    assert all((x.start_ms, x.end_ms) == (T0 + 30_000, T0 + 40_000) for x in played.labels)
    assert len(played.labels) == {"valve": 4, "climate": 2}.get(device, 1)


def test_a_wrong_clock_moves_the_stamps_and_the_label_with_them() -> None:
    played = play("signal", "clock_offset")
    label = only_label(played)
    assert (label.start_ms, label.end_ms) == (T0 + 30_000 - 17_300, T0 + 50_000 - 17_300)
    moved = [t for t in played.due if T0 + 30_000 <= t < T0 + 50_000]
    assert len(played.due) == 2 * LENGTH_MS // 1000
    for due in moved:
        expected = {**played.clean[due], "TimeStamp": due - 17_300}
        assert played.faulty[due - 17_300] == expected
        assert due not in played.faulty


@pytest.mark.parametrize(
    ("fault", "operations"),
    [("slow_valve", {"ExtendTime", "RetractTime"}), ("missing_end_switch", {"RetractTime"})],
)
def test_valve_faults_touch_their_operations_alone(fault: str, operations: set[str]) -> None:
    played = play("valve", fault)
    named = {x.operation for x in played.labels}
    assert named == operations or (fault == "missing_end_switch" and len(named) == 1)
    labelled = {ts for x in played.labels for ts in x.ts_ms or ()}
    assert played.changed() == labelled
    for label in played.labels:
        for ts in label.ts_ms or ():
            clean, value = played.clean[ts]["TimeValue"], played.faulty[ts]["TimeValue"]
            assert played.faulty[ts]["TimeType"] == label.operation
            expected = 1.6 * clean if fault == "slow_valve" else 1_500
            assert value == pytest.approx(expected, abs=1.5)


def _closing(payloads: dict[int, Payload]) -> list[int]:
    found, ran = [], False
    for ts, payload in sorted(payloads.items()):
        runs = payload["DeviceState"] == "Running"
        if ran and not runs and not payload["SynchPulse"]:
            found.append(ts)
        ran = runs
    return found


def _current(payload: Payload, phase: int) -> float:
    value: float = payload["ElectricalData"][f"CurrentL{phase}"]
    return value


@pytest.mark.parametrize("fault", ["phase_loss", "unbalance"])
def test_phase_faults_last_whole_cycles(fault: str) -> None:
    played = play("motor", fault, phase=2, duration_s=20)
    label = only_label(played)
    inside = {t for t in played.faulty if label.start_ms <= t < label.end_ms}
    assert played.changed() == inside
    assert label.ts_ms is not None
    assert list(label.ts_ms) == [t for t in _closing(played.faulty) if t in inside]
    assert 1 <= len(label.ts_ms) <= 2
    for ts in inside:
        before, after = _current(played.clean[ts], 2), _current(played.faulty[ts], 2)
        assert after == pytest.approx(0 if fault == "phase_loss" else 1.3 * before, abs=0.001)
        factor = 1.5 if fault == "phase_loss" else 1.0
        assert _current(played.faulty[ts], 1) == pytest.approx(
            factor * _current(played.clean[ts], 1), abs=0.001
        )


def test_inrush_grows_from_cycle_to_cycle() -> None:
    played = play("motor", "inrush_growth")
    label = only_label(played)
    assert label.ts_ms is None
    factors = []
    ran = False
    for ts, payload in sorted(played.faulty.items()):
        runs = payload["DeviceState"] == "Running"
        if runs and not ran and label.start_ms <= ts < label.end_ms:
            factors.append(_current(payload, 1) / _current(played.clean[ts], 1))
        ran = runs
    assert len(factors) == 5
    assert factors == sorted(factors)
    assert factors[-1] == pytest.approx(2.0, abs=0.01)


def test_repeated_faults_are_once_in_each_interval() -> None:
    text = "{fault: spike, device: l/m/signal, every_s: 20}"
    scenario = parse_scenario(PLANT.format(fault=text), source="test")
    plant = SimulatedPlant(scenario, anchor_ms=T0)
    labels = plant.chunk(T0, T0 + 200_000).labels
    assert len({label.due_ms // 20_000 for label in labels}) == len(labels) == 10
    assert len({label.due_ms % 20_000 for label in labels}) > 5


def test_a_fault_that_is_on_is_labelled_when_asked_for() -> None:
    text = "{fault: level_shift, device: l/m/signal, start_s: -5}"
    plant = SimulatedPlant(parse_scenario(PLANT.format(fault=text), source="t"), anchor_ms=T0)
    assert plant.chunk(T0, T0 + 1_000).labels == []
    (found,) = plant.chunk(T0, T0 + 1_000, ongoing=True).labels
    assert found.label.start_ms < T0 < found.label.end_ms
