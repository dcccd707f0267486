"""What was made wrong on purpose, written beside the data, and how well it was found."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

WHOLE_MACHINE: Final = "*"
"""As `device` and `series`: the label is about the machine, not about one series of it."""


class Label(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One fault in one series; times are event times in Unix ms, the interval is half-open.

    Attributes:
        series: name as it stands in the tables: the device, or `<device>.<Field>`.
        operation: time type of a valve, else empty.
        ts_ms: event times of the rows that are wrong, where single rows can be named; for an
            electrical device those of the rows that close a cycle.
    """

    line: str
    machine: str
    device: str
    series: str
    kind: str
    fault: str
    start_ms: int
    end_ms: int
    operation: str = ""
    ts_ms: tuple[int, ...] | None = None

    @property
    def key(self) -> str:
        """The series as `series_key` names it."""
        return series_key(self.line, self.machine, self.series, self.operation)

    def encoded(self) -> bytes:
        """The label as one JSON line."""
        return msgspec.json.encode(self) + b"\n"


def series_key(line: str, machine: str, series: str, operation: str = "") -> str:
    """One text for one series: `<line>/<machine>/<series>`, with `/<operation>` for a valve."""
    return "/".join((line, machine, series, operation) if operation else (line, machine, series))


def read_labels(path: Path) -> list[Label]:
    """The labels in a file; a last line that is still being written is left out."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [msgspec.json.decode(line, type=Label) for line in lines]


class Rows(NamedTuple):
    """Rows of a table that were tested: arrays of one length.

    Attributes:
        series: `series_key` of each row.
        ts_ms: event time, Unix ms.
        anomaly: 1 where the detector flagged the row.
    """

    series: NDArray[np.str_]
    ts_ms: NDArray[np.int64]
    anomaly: NDArray[np.int64]


class FaultScore(NamedTuple):
    """How one type of fault was found.

    Attributes:
        episodes: labels whose interval holds at least one tested row.
        episodes_found: those with at least one flagged row.
        points: labelled rows that were tested.
        points_found: those that were flagged.
        unseen_points: labelled rows that are not among the rows (not tested, lost, or to come).
    """

    episodes: int = 0
    episodes_found: int = 0
    points: int = 0
    points_found: int = 0
    unseen_points: int = 0

    @property
    def episode_recall(self) -> float | None:
        """Share of the episodes that were found; None without episodes."""
        return self.episodes_found / self.episodes if self.episodes else None

    @property
    def point_recall(self) -> float | None:
        """Share of the labelled rows that were flagged; None without such rows."""
        return self.points_found / self.points if self.points else None


class Score(NamedTuple):
    """The result of `score`: per type of fault, and what was flagged outside of every label."""

    faults: dict[str, FaultScore]
    clean_rows: int
    false_alarms: int

    @property
    def false_alarm_rate(self) -> float | None:
        """False alarms per row outside of every label; None without such rows."""
        return self.false_alarms / self.clean_rows if self.clean_rows else None


class _Series(NamedTuple):
    ts_ms: NDArray[np.int64]
    flagged: NDArray[np.bool_]
    clean: NDArray[np.bool_]


def score(labels: Iterable[Label], rows: Rows, *, tolerance_ms: int = 0) -> Score:
    """Compare flagged rows with labels, row by row.

    A labelled interval is widened by `tolerance_ms` on both sides: a row in it that is flagged is
    no false alarm. A label of a whole machine is about all of the machine's series at once: it is
    found at a time where any of them is flagged.
    """
    series = _by_series(rows)
    faults: dict[str, FaultScore] = {}
    for label in labels:
        concerned = _concerned(label, series)
        found = faults.get(label.fault, FaultScore())
        faults[label.fault] = _add(found, label, concerned, tolerance_ms)
    return Score(
        faults,
        sum(int(s.clean.sum()) for s in series.values()),
        sum(int((s.clean & s.flagged).sum()) for s in series.values()),
    )


def _by_series(rows: Rows) -> dict[str, _Series]:
    if not len(rows.ts_ms):
        return {}
    names, place = np.unique(rows.series, return_inverse=True)
    order = np.lexsort((rows.ts_ms, place))
    cuts = np.searchsorted(place[order], np.arange(1, len(names)))
    return {
        str(name): _Series(
            rows.ts_ms[part], rows.anomaly[part] != 0, np.ones(len(part), dtype=np.bool_)
        )
        for name, part in zip(names, np.split(order, cuts), strict=True)
    }


def _concerned(label: Label, series: dict[str, _Series]) -> Sequence[_Series]:
    if label.series != WHOLE_MACHINE:
        return [series[label.key]] if label.key in series else []
    prefix = series_key(label.line, label.machine, "")
    return [s for name, s in series.items() if name.startswith(prefix)]


def _add(
    found: FaultScore, label: Label, concerned: Sequence[_Series], tolerance_ms: int
) -> FaultScore:
    seen = flagged = False
    for one in concerned:
        lo, hi = np.searchsorted(
            one.ts_ms, (label.start_ms - tolerance_ms, label.end_ms + tolerance_ms)
        )
        one.clean[lo:hi] = False
        seen = seen or bool(hi > lo)
        flagged = flagged or bool(one.flagged[lo:hi].any())
    tested = hit = 0
    for ts in label.ts_ms or ():
        marks = [one.flagged[_at(one, ts)] for one in concerned]
        tested += any(len(mark) for mark in marks)
        hit += any(mark.any() for mark in marks)
    return FaultScore(
        found.episodes + seen,
        found.episodes_found + flagged,
        found.points + tested,
        found.points_found + hit,
        found.unseen_points + len(label.ts_ms or ()) - tested,
    )


def _at(one: _Series, ts_ms: int) -> slice:
    lo, hi = np.searchsorted(one.ts_ms, (ts_ms, ts_ms + 1))
    return slice(int(lo), int(hi))
