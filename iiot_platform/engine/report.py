"""What a batch or a rerun did, for people, metadata and lineage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class HourReport:
    """One hour after a commit.

    Attributes:
        line: name of the line.
        hour: the hour.
        version: version of the partition.
        settings_version: settings that it is computed under.
        code_version: code that computed it.
        outdated: True where the current settings are others.
        settled: True where it was computed whole after it had closed.
        dirty: True where it must be computed again.
        complete: True where the hour has closed and nothing of it is dirty.
        rows: rows computed now per table.
        total: rows that stand in the hour per table.
        anomalies: rows flagged now.
        duplicates: readings left out now, because they had come before.
        conflicts: readings that share their time with another payload.
        checkpoint_in: names the states that its series started from.
        checkpoint_out: names the states that its series hand on.
        kept_below: raw records before this offset are gone, and the hour was computed from the
            readings that they had become; 0: all were there.
    """

    line: str
    hour: int
    version: int
    settings_version: str
    code_version: str
    outdated: bool
    settled: bool
    dirty: bool
    complete: bool
    rows: Mapping[str, int]
    total: Mapping[str, int]
    anomalies: int
    duplicates: int
    conflicts: int
    checkpoint_in: str
    checkpoint_out: str
    kept_below: int = 0

    @property
    def state(self) -> Literal["live", "settled", "dirty"]:
        """How far the hour has come."""
        return "dirty" if self.dirty else "settled" if self.settled else "live"


Reason = Literal[
    "late",
    "disordered",
    "earlier hour changed",
    "settings changed",
    "code changed",
    "defect",
]
"""Why a computed hour differs from what stood; only a `defect` has no reason to.

`late`: rows came after the hour had ended and the grace was over. `disordered`: rows came in
time, but after their series had gone on to a later hour.
"""
CHECKPOINT = "checkpoint"
"""Stands for the states of an hour's series where tables are named."""


class Difference(NamedTuple):
    """Rows of a series that a computation of the whole hour has found to be others.

    Attributes:
        table: name of the table, or `CHECKPOINT`.
        series: series key; empty where the rows belong to the line.
        reason: why.
    """

    table: str
    series: str
    reason: Reason


@dataclass(frozen=True)
class SettleReport:
    """One hour that was computed whole and compared with what stood.

    Attributes:
        report: the hour now.
        differences: what did not.
        kept: True where no file had to be written.
    """

    report: HourReport
    differences: tuple[Difference, ...]
    kept: bool

    @property
    def equal(self) -> bool:
        """True where every row and every state stood already."""
        return not self.differences

    @property
    def defects(self) -> tuple[Difference, ...]:
        """The differences that have no reason."""
        return tuple(found for found in self.differences if found.reason == "defect")


@dataclass(frozen=True)
class BatchReport:
    """One live batch after its commit; offsets [lo, hi) are in the tables.

    Attributes:
        line: name of the line.
        lo: first offset taken.
        hi: offset behind the last one taken.
        hours: the hours that were extended.
        quarantined: messages set aside, by reason.
        duplicates: readings left out, because they had come before.
        late_rows: readings of closed or overtaken hours, which are computed by a rerun.
        seconds: reading, computing and committing.
        lag_rows: records that are sealed and not yet taken.
        lag_s: age of the newest taken record's receive time.
    """

    line: str
    lo: int
    hi: int
    hours: tuple[HourReport, ...]
    quarantined: Mapping[str, int]
    duplicates: int
    late_rows: int
    seconds: float
    lag_rows: int
    lag_s: float
