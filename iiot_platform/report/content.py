"""What a report shows: charts and figures, before anything is drawn. Times are Unix ms."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from iiot_platform.core.clock import from_ms
from iiot_platform.engine.status import PlantStatus

Times = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_NO_TIMES: Final = np.zeros(0, np.int64)
_NO_VALUES: Final = np.zeros(0, np.float64)


@dataclass(frozen=True)
class Curve:
    """One quantity over time; NaN where there is no value."""

    name: str
    ts: Times
    values: Values


@dataclass(frozen=True)
class Band:
    """The limits that values were tested against, where the detector has learnt."""

    ts: Times = field(default_factory=_NO_TIMES.copy)
    lower: Values = field(default_factory=_NO_VALUES.copy)
    upper: Values = field(default_factory=_NO_VALUES.copy)


@dataclass(frozen=True)
class Figures:
    """The numbers of one tested series in the period of the report.

    Attributes:
        table: table that it stands in.
        machine: machine level of its topic.
        series: device, with the operation of a valve.
        quantity: the column that is tested.
        rows: rows in the period.
        warming: rows that were not tested, because the detector was still learning.
        anomalies: rows flagged.
        ratio: anomaly ratio of the newest row.
        value: value of the newest row; None where it is missing.
        lower: lower limit of the newest row; None while the detector learns.
        upper: upper limit of the newest row.
        off_reference: the level has shifted and was not acknowledged.
    """

    table: str
    machine: str
    series: str
    quantity: str
    rows: int
    warming: int
    anomalies: int
    ratio: float
    value: float | None
    lower: float | None
    upper: float | None
    off_reference: bool


@dataclass(frozen=True)
class Chart:
    """Curves over one axis of values, with what a detector said of the first one.

    Attributes:
        unit: unit of the values, empty where it is not known.
        anomalies: the points that were flagged.
        shifts: times at which a level was learnt anew.
        ratio: the anomaly ratio; None where nothing is tested.
        style: how the curves are drawn.
        bounds: fixed lowest and highest value; None: from the values.
        wide: takes the whole width of the page.
    """

    title: str
    curves: tuple[Curve, ...]
    unit: str = ""
    band: Band = field(default_factory=Band)
    anomalies: Curve | None = None
    shifts: Times = field(default_factory=_NO_TIMES.copy)
    ratio: Curve | None = None
    figures: Figures | None = None
    style: Literal["line", "points", "bars"] = "line"
    bounds: tuple[float | None, float | None] = (None, None)
    wide: bool = False


@dataclass(frozen=True)
class Stretch:
    """A state that held in [start_ms, end_ms)."""

    start_ms: int
    end_ms: int
    value: int


@dataclass(frozen=True)
class Timeline:
    """States over time, one row each; where nothing is known there is no stretch.

    Attributes:
        rows: name and stretches of each state, in order of time.
        finer: stretches that were shorter than what can be drawn and are not in `rows`.
    """

    title: str
    rows: tuple[tuple[str, tuple[Stretch, ...]], ...]
    finer: int = 0


@dataclass(frozen=True)
class Group:
    """What belongs together: the charts of one device, say."""

    title: str
    charts: tuple[Chart | Timeline, ...]


@dataclass(frozen=True)
class Section:
    """A kind of data of a line."""

    title: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Overview:
    """The numbers of a line in the period; None where they are not known.

    Attributes:
        newest_ms: event time of its newest reading in the tables.
        lateness_mean_s: mean of receive time minus event time, over the readings.
        covered_share: share of the period in which no source was known to be away.
    """

    newest_ms: int | None
    readings: int
    series: int
    anomalies: int
    quarantined: int
    running_share: float | None
    lateness_mean_s: float | None
    lateness_max_s: float | None
    covered_share: float


@dataclass(frozen=True)
class Lineage:
    """Where the rows of a table come from.

    Attributes:
        runs: how many runs computed them.
        newest_run: the run of the newest row.
        settings: the versions of the settings that they were computed under.
    """

    table: str
    rows: int
    newest_ms: int
    runs: int
    newest_run: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Flagged:
    """A row that a detector flagged; `table`, `machine`, `series`, `quantity` as in `Figures`."""

    ts_ms: int
    table: str
    machine: str
    series: str
    quantity: str
    value: float
    mean: float
    z_score: float
    status: str
    run: str


@dataclass(frozen=True)
class Event:
    """What happened to hours of a line, in [at_ms, until_ms) of event time."""

    at_ms: int
    until_ms: int
    kind: str
    text: str
    hour: int
    run: str


@dataclass(frozen=True)
class LineReport:
    """One line; its newest anomalies and what happened, the newest first."""

    line: str
    overview: Overview
    sections: tuple[Section, ...]
    lineage: tuple[Lineage, ...]
    flagged: tuple[Flagged, ...] = ()
    events: tuple[Event, ...] = ()

    def figures(self) -> list[Figures]:
        """The numbers of every tested series."""
        charts = [c for section in self.sections for group in section.groups for c in group.charts]
        return [c.figures for c in charts if isinstance(c, Chart) and c.figures is not None]


@dataclass(frozen=True)
class Report:
    """Some lines over [start_ms, end_ms), looked at `made_ms`, and the platform at that moment."""

    start_ms: int
    end_ms: int
    made_ms: int
    lines: tuple[LineReport, ...]
    platform: PlantStatus | None = None

    def as_json(self) -> dict[str, Any]:
        """Its numbers, without the curves, as values that JSON knows.

        Those of the platform are what `iiot status --json` prints.
        """
        return {
            "start": from_ms(self.start_ms).isoformat(),
            "end": from_ms(self.end_ms).isoformat(),
            "made": from_ms(self.made_ms).isoformat(),
            "lines": [
                {
                    "line": line.line,
                    "overview": asdict(line.overview),
                    "series": [asdict(figures) for figures in line.figures()],
                    "lineage": [asdict(lineage) for lineage in line.lineage],
                    "newest_anomalies": [_without_nan(asdict(one)) for one in line.flagged],
                    "events": [asdict(event) for event in line.events],
                }
                for line in self.lines
            ],
        }


def _without_nan(numbers: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in numbers.items()
    }
