from pathlib import Path

import pytest

from simulator.errors import ScenarioError
from simulator.scenario import FAULTS, unix_ms
from simulator.scenario_file import load_scenario, parse_scenario

GOOD = """
name: small
lines:
  l1:
    press:
      pressure: {kind: signal, rate_hz: 2, mean: 5, sigma: 0.1}
      valve: {kind: valve}
      climate: {kind: generic, fields: {Temperature: {mean: 20, sigma: 0.1}}}
faults:
  - {fault: spike, device: l1/press/pressure, every_s: 60}
"""


def test_default_scenario_holds_what_it_promises() -> None:
    scenario = load_scenario()
    devices = scenario.devices()
    assert set(scenario.lines) == {"line1", "line2"}
    assert len(devices) == 20
    for line in scenario.lines:
        kinds = {spec.kind for topic, spec in devices.items() if topic.startswith(f"{line}/")}
        assert kinds == {"signal", "state", "vibration", "valve", "electrical", "generic"}
    assert {fault.fault for fault in scenario.faults} == set(FAULTS)


def test_lines_can_be_chosen() -> None:
    scenario = load_scenario().only(("line2",))
    assert set(scenario.lines) == {"line2"}
    assert scenario.faults
    assert all(fault.device.startswith("line2/") for fault in scenario.faults)
    with pytest.raises(ScenarioError, match=r"no line 'line3'; did you mean 'line"):
        load_scenario().only(("line3",))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rate_hz: 2", "rate_hz: 0", r"lines\.l1\.press\.pressure\.rate_hz: .*0\.01; got 0"),
        ("rate_hz: 2", "rate: 2", r"lines\.l1\.press\.pressure\.rate: there is no such field"),
        ("kind: signal", "kind: sensor", r"lines\.l1\.press\.pressure: .*'signal'.*'generic'"),
        (", sigma: 0.1}\n      v", "}\n      v", r"lines\.l1\.press\.pressure\.sigma: Field req"),
        ("fault: spike", "fault: spyke", r"faults\[0\]\.fault: .*'spike'.*got 'spyke'"),
        ("l1/press/pressure, e", "l1/press/presure, e", "did you mean 'l1/press/pressure'"),
        ("fault: spike", "fault: slow_valve", r"a signal can not have 'slow_valve'; .*'?spike"),
        ("every_s: 60", "every_s: 60, start_s: 1", r"faults\[0\]: one of every_s, start and"),
        (", every_s: 60", "", r"faults\[0\]: one of .* got none"),
        ("every_s: 60", "start_s: 6, offset_s: 1", r"faults\[0\]\.offset_s: goes with every_s"),
        ("every_s: 60", "every_s: 6, duration_s: 7", r"duration_s: ends after every_s = 6 s"),
        ("every_s: 60", "every_s: 60, field: X", r"faults\[0\]\.field: no 'X'"),
        ("every_s: 60", "start: 2026-01-01T00:00:00", r"faults\[0\]\.start: .*timezone"),
        ("  press:", "  pre+ss:", "can not be a topic level"),
        ("valve: {kind: valve}", "pressure: {kind: valve}", "'pressure' stands twice"),
        ("valve: {kind: valve}", "valve: {kind: valve", "is no YAML"),
    ],
)
def test_an_error_names_file_field_and_what_is_valid(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ScenarioError, match=message) as error:
        parse_scenario(GOOD.replace(old, new, 1), source="plant.yaml")
    assert all(line.startswith("plant.yaml: ") for line in str(error.value).splitlines()[:1])


def test_every_problem_is_listed_at_once() -> None:
    text = GOOD.replace("rate_hz: 2", "rate_hz: 0").replace("fault: spike", "fault: spyke")
    with pytest.raises(ScenarioError) as error:
        parse_scenario(text, source="x")
    assert len(error.value.problems) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.yaml: file: can not be read"):
        load_scenario(tmp_path / "none.yaml")


def test_a_start_is_exact_to_the_millisecond() -> None:
    text = GOOD.replace("every_s: 60", "start: 2026-01-01T01:00:00.123+01:00")
    assert parse_scenario(text, source="x").faults[0].start_ms == 1_767_225_600_123


def test_moments_before_the_epoch_are_exact() -> None:
    start = parse_scenario(
        GOOD.replace("every_s: 60", "start: 1969-12-31T23:59:59.250Z"), source="x"
    ).faults[0]
    assert start.start is not None
    assert unix_ms(start.start) == -750
