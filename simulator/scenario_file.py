"""Reads a scenario file; what is wrong with it is said with file, field and what is valid."""

from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError

from simulator.errors import Problem, ScenarioError, nearest
from simulator.scenario import (
    FAULTS,
    DeviceSpec,
    ElectricalSpec,
    FaultSpec,
    GenericSpec,
    Scenario,
)

DEFAULT_SCENARIO: Final = Path(__file__).with_name("default_plant.yaml")


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice, where YAML silently takes the last."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[object, object]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"'{key}' stands twice; each name once", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_scenario(path: Path = DEFAULT_SCENARIO) -> Scenario:
    """The scenario in a file.

    Raises:
        ScenarioError: the file can not be read, or what it says can not be played.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(str(path), [Problem("file", f"can not be read: {error}")]) from error
    return parse_scenario(text, source=str(path))


def parse_scenario(text: str, *, source: str) -> Scenario:
    """The scenario in a YAML text; `source` names it in errors.

    Raises:
        ScenarioError: it is no YAML, or what it says can not be played.
    """
    try:
        # a subclass of the safe loader
        tree = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506
    except yaml.YAMLError as error:
        raise ScenarioError(source, [Problem("file", f"is no YAML: {error}")]) from error
    try:
        scenario = Scenario.model_validate(tree)
    except ValidationError as error:
        raise ScenarioError(source, [_problem(dict(e)) for e in error.errors()]) from error
    problems = misfits(scenario)
    if problems:
        raise ScenarioError(source, problems)
    return scenario


def _problem(error: dict[str, object]) -> Problem:
    loc = error["loc"]
    kinds = {"signal", "state", "vibration", "valve", "electrical", "generic"}
    path: list[str] = []
    for i, part in enumerate(loc if isinstance(loc, tuple) else ()):
        # the tag of the union stands right behind the device's name
        if i == 4 and part in kinds and path[0] == "lines":  # noqa: PLR2004
            continue
        path.append(f"[{part}]" if isinstance(part, int) else f".{part}")
        path[0] = path[0].removeprefix(".")
    message = str(error["msg"])
    if error["type"] == "extra_forbidden":
        message = "there is no such field; remove it or mend its name"
    elif error["type"] != "missing":
        message = f"{message}; got {error['input']!r}"
    return Problem("".join(path) or "scenario", message)


def misfits(scenario: Scenario) -> list[Problem]:
    """What does not fit together, though each part is right in itself."""
    devices = scenario.devices()
    problems: list[Problem] = []
    for topic, spec in devices.items():
        field = "lines." + topic.replace("/", ".")
        if isinstance(spec, ElectricalSpec) and spec.running_s > spec.period_s - 1.5:
            problems.append(
                Problem(f"{field}.running_s", "should leave 1.5 s of period_s to stand still")
            )
    for i, fault in enumerate(scenario.faults):
        problems.extend(_fault_misfits(f"faults[{i}]", fault, devices))
    return problems


def _fault_misfits(field: str, fault: FaultSpec, devices: dict[str, DeviceSpec]) -> list[Problem]:
    problems: list[Problem] = []
    times = [n for n in ("every_s", "start", "start_s") if getattr(fault, n) is not None]
    if len(times) != 1:
        problems.append(
            Problem(field, f"one of every_s, start and start_s is needed, got {times or 'none'}")
        )
    if fault.offset_s is not None and fault.every_s is None:
        problems.append(Problem(f"{field}.offset_s", "goes with every_s alone"))
    if fault.every_s is not None and fault.length_ms + 1000 * (fault.offset_s or 0) > (
        1000 * fault.every_s
    ):
        problems.append(
            Problem(f"{field}.duration_s", f"ends after every_s = {fault.every_s:g} s are over")
        )
    spec = devices.get(fault.device)
    if spec is None:
        hint = nearest(fault.device, devices)
        problems.append(Problem(f"{field}.device", f"no device '{fault.device}'; {hint}"))
        return problems
    if spec.kind not in FAULTS[fault.fault].kinds:
        valid = sorted(name for name, default in FAULTS.items() if spec.kind in default.kinds)
        problems.append(
            Problem(
                f"{field}.fault",
                f"a {spec.kind} can not have '{fault.fault}'; valid are: {', '.join(valid)}",
            )
        )
    if fault.field is not None and not (
        isinstance(spec, GenericSpec) and fault.field in spec.fields
    ):
        fields = spec.fields if isinstance(spec, GenericSpec) else ()
        problems.append(
            Problem(f"{field}.field", f"no '{fault.field}'; {nearest(fault.field, fields)}")
        )
    return problems
