"""Clean data is near-stationary Gaussian noise, faulty data is not: a plain detector sees both."""

import json
from collections import defaultdict

import numpy as np
import pytest

from simulator.labels import Label, Rows, Score, score
from simulator.plant import SimulatedPlant
from simulator.scenario_file import load_scenario

T0 = 1_790_000_000_000
WINDOW, THRESHOLD = 200, 3.5
SIGNALS = ("line1/press/oil_pressure", "line2/oven/exhaust_flow", "line2/oven/zone_temperature")


def flags(values: list[float]) -> list[int]:
    """-1 while the first window fills, then 1 where |z| exceeds the threshold."""
    window: list[float] = []
    found: list[int] = []
    for value in values:
        if len(window) < WINDOW:
            window.append(value)
            found.append(-1)
            continue
        known = np.array(window)
        anomaly = abs(value - known.mean()) > THRESHOLD * known.std(ddof=1)
        found.append(int(anomaly))
        if not anomaly:
            window = [*window[1:], value]
    return found


@pytest.fixture(scope="module")
def scored() -> Score:
    scenario = load_scenario()
    chosen = {
        machine: {
            name: spec for name, spec in devices.items() if f"{line}/{machine}/{name}" in SIGNALS
        }
        for line, machines in scenario.lines.items()
        for machine, devices in machines.items()
    }
    scenario = scenario.model_copy(
        update={
            "lines": {
                "line1": {"press": chosen["press"]},
                "line2": {"oven": chosen["oven"]},
            },
            "faults": tuple(fault for fault in scenario.faults if fault.device in SIGNALS),
        }
    )
    chunk = SimulatedPlant(scenario, anchor_ms=T0).chunk(T0, T0 + 3_600_000)
    series: dict[str, dict[int, float]] = defaultdict(dict)
    for message in chunk.messages:
        payload = json.loads(message.payload)
        series[message.topic][payload["TimeStamp"]] = payload["SensorValue"]
    table = [
        (name, ts, flag)
        for name, values in series.items()
        for (ts, _), flag in zip(
            sorted(values.items()), flags([v for _, v in sorted(values.items())]), strict=True
        )
        if flag >= 0
    ]
    names, times, flagged = zip(*table, strict=True)
    labels: list[Label] = [found.label for found in chunk.labels]
    return score(labels, Rows(np.array(names), np.array(times), np.array(flagged)))


def test_every_spike_and_shifted_row_is_found(scored: Score) -> None:
    for fault, least in (("spike", 70), ("level_shift", 300)):
        assert scored.faults[fault].points > least
        assert scored.faults[fault].point_recall == 1.0


def test_false_alarms_are_those_of_gaussian_noise(scored: Score) -> None:
    # a normal distribution gives 0.06% at this window and threshold
    assert scored.clean_rows > 14_000
    assert scored.false_alarm_rate is not None
    assert 0 < scored.false_alarm_rate < 0.0015
