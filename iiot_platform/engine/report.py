"""What a batch or a rerun did, for people, metadata and lineage."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class HourReport:
    """One hour after a commit.

    Attributes:
        line: name of the line.
        hour: the hour.
        version: version of the partition.
        settings_version: settings that it is computed under.
        code_version: code that computed it.
        settled: True where it was computed whole after it had closed.
        complete: True where the hour has closed and nothing of it is dirty.
        rows: rows computed now per table.
        total: rows that stand in the hour per table.
        anomalies: rows flagged now.
        duplicates: readings left out now, because they had come before.
        conflicts: readings that share their time with another payload.
    """

    line: str
    hour: int
    version: int
    settings_version: str
    code_version: str
    settled: bool
    complete: bool
    rows: Mapping[str, int]
    total: Mapping[str, int]
    anomalies: int
    duplicates: int
    conflicts: int


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
