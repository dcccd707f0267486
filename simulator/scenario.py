"""What a person writes: lines, machines, devices with their physics, and faults."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from simulator.errors import Problem, ScenarioError, nearest

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _level(name: str) -> str:
    if not name or set(name) & set("/+#\\\0") or name != name.strip() or name.startswith("$"):
        raise ValueError(
            f"'{name}' can not be a topic level: no '/', '+', '#', '\\', NUL, no blanks around it, "
            "not empty, no '$' in front"
        )
    return name


Level = Annotated[str, AfterValidator(_level)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """Base of everything in a scenario: frozen, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class QuantitySpec(Part):
    """Gaussian noise around a mean, with a slow sine far below the noise where one is given."""

    mean: float
    sigma: Positive
    trend_sigma: NotNegative = 0.0
    """Amplitude of the slow sine, in sigma."""
    trend_period_s: Positive = 7_200.0


class Sampled(Part):
    """A device that reports at a rate of its own."""

    rate_hz: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    jitter_ms: Annotated[int, Field(ge=0, le=1000)] = 3
    """Sample times are this much irregular; at most a quarter of the sample interval."""


class SignalSpec(Sampled, QuantitySpec):
    """A sensor with one value."""

    kind: Literal["signal"]


class StateSpec(Sampled):
    """A state that walks through a fixed sequence of (value, seconds)."""

    kind: Literal["state"]
    sequence: Annotated[tuple[tuple[int, Positive], ...], Field(min_length=1)]


class VibrationSpec(Sampled):
    """A vibration sensor: RMS acceleration of three axes."""

    kind: Literal["vibration"]
    mean: tuple[Positive, Positive, Positive]
    sigma: Positive
    temperature: QuantitySpec | None = None
    naming: Literal["main", "alias"] = "main"


class ValveSpec(Part):
    """An air valve: four operations in each cycle of its machine, times in ms."""

    kind: Literal["valve"]
    period_s: Annotated[float, Field(ge=0.5)] = 5.0
    extend_cmd_ms: Positive = 320.0
    extend_ms: Positive = 250.0
    retract_cmd_ms: Positive = 300.0
    retract_ms: Positive = 230.0
    sigma_ms: Positive = 6.0
    jitter_ms: Annotated[int, Field(ge=0, le=100)] = 3


class ElectricalSpec(Sampled):
    """A motor that runs in cycles, three phases; between cycles it reports once a second."""

    kind: Literal["electrical"]
    rate_hz: Annotated[float, Field(ge=2, le=100)] = 10.0
    period_s: Annotated[float, Field(ge=2)] = 12.0
    running_s: Annotated[float, Field(ge=1)] = 8.0
    current_a: Positive = 12.0
    inrush: Annotated[float, Field(ge=1)] = 5.0
    """Current at the start of a cycle, as a multiple of the running current."""
    inrush_tau_s: Positive = 0.25
    volt_v: Positive = 230.0
    power_factor: Annotated[float, Field(gt=0, lt=1)] = 0.86
    state_as: Literal["text", "bool"] = "text"


class GenericSpec(Sampled):
    """A device that sends a plain object of numbers."""

    kind: Literal["generic"]
    fields: Annotated[dict[Level, QuantitySpec], Field(min_length=1)]


DeviceSpec = Annotated[
    SignalSpec | StateSpec | VibrationSpec | ValveSpec | ElectricalSpec | GenericSpec,
    Field(discriminator="kind"),
]

FaultName = Literal[
    "spike",
    "burst",
    "drift",
    "level_shift",
    "noise",
    "stuck",
    "dropout",
    "clock_offset",
    "slow_valve",
    "missing_end_switch",
    "phase_loss",
    "inrush_growth",
    "unbalance",
]


class FaultDefaults(NamedTuple):
    """What a fault is unless the scenario says otherwise."""

    magnitude: float
    duration_s: float
    kinds: frozenset[str]


_VALUES: Final = frozenset({"signal", "vibration", "generic"})
_ALL: Final = _VALUES | {"state", "valve", "electrical"}
_VALVE: Final = frozenset({"valve"})
_ELECTRICAL: Final = frozenset({"electrical"})
FAULTS: Final[dict[str, FaultDefaults]] = {
    "spike": FaultDefaults(14.0, 0.0, _VALUES),
    "burst": FaultDefaults(14.0, 5.0, _VALUES),
    "drift": FaultDefaults(14.0, 20.0, _VALUES),
    "level_shift": FaultDefaults(12.0, 15.0, _VALUES),
    "noise": FaultDefaults(6.0, 15.0, _VALUES),
    "stuck": FaultDefaults(0.0, 15.0, _VALUES | {"state"}),
    "dropout": FaultDefaults(0.0, 10.0, _ALL),
    "clock_offset": FaultDefaults(-17.3, 20.0, _ALL),
    "slow_valve": FaultDefaults(1.6, 15.0, _VALVE),
    "missing_end_switch": FaultDefaults(1_500.0, 5.0, _VALVE),
    "phase_loss": FaultDefaults(1.0, 12.0, _ELECTRICAL),
    "inrush_growth": FaultDefaults(2.0, 60.0, _ELECTRICAL),
    "unbalance": FaultDefaults(0.3, 24.0, _ELECTRICAL),
}
"""Magnitudes: in sigma for spike, burst, drift and level_shift; a factor for noise, slow_valve
and inrush_growth; ms of the time-out for missing_end_switch; the share of the phase current that
is lost or added for phase_loss and unbalance; seconds for clock_offset."""


class FaultSpec(Part):
    """A fault of one device: once, or again and again.

    Attributes:
        device: `<line>/<machine>/<device>`.
        every_s: once in each interval of this length, counted from the Unix epoch.
        offset_s: where in that interval; without it at a seeded random place.
        start: at this moment (with a time zone).
        start_s: this long after the scenario's first live moment; negative is in its history.
        field: the field of a generic device; default its first.
        phase: the phase of an electrical device.
    """

    fault: FaultName
    device: str
    every_s: Positive | None = None
    offset_s: NotNegative | None = None
    start: AwareDatetime | None = None
    start_s: float | None = None
    duration_s: NotNegative | None = None
    magnitude: float | None = None
    field: str | None = None
    phase: Literal[1, 2, 3] = 1

    @property
    def length_ms(self) -> int:
        """How long it lasts."""
        seconds = FAULTS[self.fault].duration_s if self.duration_s is None else self.duration_s
        return round(seconds * 1000)

    @property
    def size(self) -> float:
        """Its magnitude, in the unit of its type."""
        return FAULTS[self.fault].magnitude if self.magnitude is None else self.magnitude

    @property
    def start_ms(self) -> int | None:
        """The moment of `start` in Unix ms."""
        return None if self.start is None else unix_ms(self.start)


class Scenario(Part):
    """A plant and what goes wrong in it: line -> machine -> device."""

    name: Level
    seed: Annotated[int, Field(ge=0)] = 1
    lines: Annotated[
        dict[Level, Annotated[dict[Level, dict[Level, DeviceSpec]], Field(min_length=1)]],
        Field(min_length=1),
    ]
    faults: tuple[FaultSpec, ...] = ()

    def devices(self) -> dict[str, DeviceSpec]:
        """Every device by its topic, in the order of the file."""
        return {
            f"{line}/{machine}/{name}": spec
            for line, machines in self.lines.items()
            for machine, devices in machines.items()
            for name, spec in devices.items()
        }

    def only(self, lines: tuple[str, ...]) -> "Scenario":
        """The scenario with these lines alone.

        Raises:
            ScenarioError: a line is not part of the scenario.
        """
        problems = [
            Problem("lines", f"there is no line '{line}'; {nearest(line, self.lines)}")
            for line in lines
            if line not in self.lines
        ]
        if problems:
            raise ScenarioError(f"scenario '{self.name}'", problems)
        return self.model_copy(
            update={
                "lines": {line: self.lines[line] for line in lines},
                "faults": tuple(f for f in self.faults if f.device.partition("/")[0] in lines),
            }
        )


def unix_ms(moment: datetime) -> int:
    """An aware datetime as Unix milliseconds, exact."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)
