"""What can be wrong with a plant file, as data."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from iiot_platform.core.errors import ConfigError

Location = tuple[str | int, ...]


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        location: field names and places in lists, from the top of the plant file.
        message: what is wrong, what was got, what to do; never the text of a secret.
        line: line of the file, counted from 1; 0 where there is no file.
    """

    location: Location
    message: str
    line: int = 0

    @property
    def field_path(self) -> str:
        """The location as it is written in messages, for example `lines[0].topic`."""
        text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.location)
        return text.removeprefix(".")

    @property
    def text(self) -> str:
        """The field and what is wrong with it."""
        return f"{self.field_path}: {self.message}" if self.location else self.message


class PlantError(ConfigError):
    """The parts of a plant do not fit together."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.text for problem in self.problems))


class PlantFileError(ConfigError):
    """A plant file can not be used; every problem is listed with its line."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(self._line(problem) for problem in self.problems))

    def _line(self, problem: Problem) -> str:
        place = f"{self.path}:{problem.line}" if problem.line else str(self.path)
        return f"{place}: {problem.text}"


class UnknownLineError(ConfigError):
    """A line was asked for that the plant file does not name."""

    def __init__(self, name: str, hint: str) -> None:
        self.name = name
        super().__init__(f"the plant has no line '{name}'; {hint}")
