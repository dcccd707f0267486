"""Payload shapes, decoded with the standard library's JSON and compared field by field."""

import json
from typing import Any

import pytest

from simulator.plant import SimulatedPlant
from simulator.scenario_file import load_scenario

T0 = 1_790_000_000_000
NAMES = {"LineName": str, "MachineName": str, "TimeStamp": int}
SHAPES: dict[str, dict[str, type]] = {
    "line1/press/oil_pressure": {"SensorName": str, "SensorValue": float},
    "line1/press/press_state": {"StateName": str, "StateValue": int},
    "line1/press/drive_bearing": {
        "SensorName": str,
        "VibAccelTotRmsX": float,
        "VibAccelTotRmsY": float,
        "VibAccelTotRmsZ": float,
        "SensorTemperature": float,
    },
    "line1/conveyor/gear_vibration": {
        "SensorName": str,
        "VibAccelTotal_RMS_X": float,
        "VibAccelTotal_RMS_Y": float,
        "VibAccelTotal_RMS_Z": float,
        "VibrationLevel": float,
    },
    "line1/press/clamp_valve": {"ValveName": str, "TimeType": str, "TimeValue": int},
    "line1/conveyor/hall_climate": {"Temperature": float, "Humidity": float},
    "line1/press/main_drive": {
        "DeviceName": str,
        "DeviceState": str,
        "SynchPulse": bool,
        "ElectricalData": dict,
    },
    "line2/oven/fan_motor": {
        "DeviceName": str,
        "DeviceState": bool,
        "SynchPulse": bool,
        "ElectricalData": dict,
    },
}
TOTALS = {"ActPowerTot", "ReactPowerTot", "ApparPowerTot", "PowerFact", "PQF"}
PER_PHASE = {
    name.replace("Ln", f"L{n}")
    for n in (1, 2, 3)
    for name in (
        "ActPowerLn",
        "ReactPowerLn",
        "ApparPowerLn",
        "CurrentLn",
        "VoltLn",
        "PowFactLn",
        "VoltLn_THD",
        "CurrentLn_THD",
    )
}
HARMONICS = {f"CurrentL{n}_Harm" for n in (1, 2, 3)}


@pytest.fixture(scope="module")
def decoded() -> dict[str, list[dict[str, Any]]]:
    plant = SimulatedPlant(load_scenario(), anchor_ms=T0)
    found: dict[str, list[dict[str, Any]]] = {}
    for message in plant.chunk(T0, T0 + 60_000).messages:
        found.setdefault(message.topic, []).append(json.loads(message.payload.decode("utf-8")))
    return found


@pytest.mark.parametrize("topic", SHAPES)
def test_fields_and_types(topic: str, decoded: dict[str, list[dict[str, Any]]]) -> None:
    expected = {**NAMES, **SHAPES[topic]}
    line, machine, device = topic.split("/")
    for payload in decoded[topic]:
        assert {name: type(value) for name, value in payload.items()} == expected
        assert (payload["LineName"], payload["MachineName"]) == (line, machine)
        for name in ("SensorName", "StateName", "ValveName", "DeviceName"):
            assert payload.get(name, device) == device
        assert len(str(payload["TimeStamp"])) == 13


def test_a_valve_reports_four_operations_in_each_cycle(
    decoded: dict[str, list[dict[str, Any]]],
) -> None:
    operations = [p["TimeType"] for p in decoded["line1/press/clamp_valve"]]
    order = ["ExtendCmdTime", "ExtendTime", "RetractCmdTime", "RetractTime"]
    begin = order.index(operations[0])
    assert operations == [order[(begin + i) % 4] for i in range(len(operations))]
    assert len(operations) == 48


def test_electrical_data(decoded: dict[str, list[dict[str, Any]]]) -> None:
    for payload in decoded["line1/press/main_drive"]:
        data = payload["ElectricalData"]
        assert set(data) == TOTALS | PER_PHASE | HARMONICS
        assert len(TOTALS | PER_PHASE) == 29
        assert all(type(data[name]) is float for name in TOTALS | PER_PHASE)
        for name in HARMONICS:
            assert [type(value) for value in data[name]] == [float] * 42
        assert data["ApparPowerL1"] == pytest.approx(data["CurrentL1"] * data["VoltL1"], abs=0.01)
        assert data["ActPowerTot"] == pytest.approx(
            sum(data[f"ActPowerL{n}"] for n in (1, 2, 3)), abs=0.03
        )
    assert 1_400 < len(json.dumps(payload, separators=(",", ":"))) < 1_800


@pytest.mark.parametrize("topic", ["line1/press/main_drive", "line2/oven/fan_motor"])
def test_cycles_run_between_pulse_and_close(
    topic: str, decoded: dict[str, list[dict[str, Any]]]
) -> None:
    payloads = decoded[topic]
    running = [p["DeviceState"] in (True, "Running") for p in payloads]
    starts = [i for i in range(1, len(payloads)) if running[i] and not running[i - 1]]
    closes = [i for i in range(1, len(payloads)) if running[i - 1] and not running[i]]
    assert len(starts) >= 3
    for i in starts:
        assert payloads[i - 1]["SynchPulse"]
        # the inrush is the first sample of the cycle
        currents = [p["ElectricalData"]["CurrentL1"] for p in payloads[i : i + 8]]
        assert currents[0] == max(currents) > 3 * currents[-1]
    for i in closes:
        assert not payloads[i]["SynchPulse"]
    steps = [
        b["TimeStamp"] - a["TimeStamp"]
        for a, b, runs in zip(payloads, payloads[1:], running[1:], strict=False)
        if runs
    ]
    assert 95 <= min(steps) <= max(steps) <= 105
