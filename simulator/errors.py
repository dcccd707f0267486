"""What the simulator refuses, with what, where, and what is valid."""

import difflib
from collections.abc import Iterable
from typing import NamedTuple


class SimulatorError(Exception):
    """Base of every error that the simulator raises on purpose."""


class Problem(NamedTuple):
    """One thing that is wrong with a scenario: the field's path and what is valid there."""

    field: str
    message: str


class ScenarioError(SimulatorError):
    """A scenario can not be played; lists every problem with its file and field."""

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{source}: {p.field}: {p.message}" for p in self.problems))


class RecordingError(SimulatorError):
    """A recording can not be read or a cell of it is no value."""

    def __init__(self, path: str, where: str, detail: str) -> None:
        super().__init__(f"{path}: {where}: {detail}")


class BrokerRefusedError(SimulatorError):
    """The broker is there and refuses us; trying again with the same words is pointless."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"broker {address} refused the connection: {reason}; "
            "check user name, password and what the broker allows"
        )


def nearest(name: str, valid: Iterable[str]) -> str:
    """A sentence that suggests the nearest valid name, or lists what is valid."""
    options = sorted(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"valid are: {', '.join(options)}"
