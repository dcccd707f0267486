"""The shapes that every kind's computation takes and gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.readings import Bools, Floats, Ints

Column = npt.NDArray[Any] | list[Any]


@dataclass(frozen=True)
class SeriesRows:
    """The readings of one series in (ts, offset) order, one per ts; arrays of length n.

    Attributes:
        ts: event time, Unix ms.
        good: False where the quality is not Good.
        values: float64[n, k] in the order of `schema.VALUE_NAMES` of the kind.
        state: state values, where the kind has one.
        pulse: SynchPulse as 0 or 1, where the kind has one.
    """

    ts: Ints
    good: Bools
    values: Floats
    state: Ints
    pulse: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, rows: Bools) -> "SeriesRows":
        """The rows where a mask is true."""
        return SeriesRows(
            self.ts[rows], self.good[rows], self.values[rows], self.state[rows], self.pulse[rows]
        )


class TableRows(NamedTuple):
    """Rows for one table: event times and the fields by name, tags left out."""

    table: str
    ts: Ints
    fields: Mapping[str, Column]


class RunningTime(NamedTuple):
    """Time in a running state and in any known state, per summary interval, in whole ms."""

    interval: Ints
    running_ms: Ints
    known_ms: Ints


@dataclass(frozen=True)
class Outcome:
    """What a series' rows became.

    Attributes:
        state: what influences later rows, serialised.
        tables: rows per table.
        anomalies: event times of flagged rows.
        changes: event times at which a state ended.
        running: running time, where the series has states.
    """

    state: bytes
    tables: tuple[TableRows, ...]
    anomalies: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    changes: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    running: RunningTime | None = None


class Computation(Protocol):
    """The computation of one kind: a pure function of state, rows and settings."""

    def __call__(
        self, key: SeriesKey, state: bytes | None, rows: SeriesRows, settings: LineSettings
    ) -> Outcome:
        """The outcome of these rows; `state` is None where the series starts.

        However the rows are cut into calls, the concatenated outcomes and the last state are
        the same bit for bit.
        """
        ...
