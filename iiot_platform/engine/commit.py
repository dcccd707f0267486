"""What one commit says: everything that a batch or a rerun changes, and what it rests on."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.lifecycle import Event
from iiot_platform.engine.partition import SeriesState
from iiot_platform.engine.table_store import TableFile

Operation = Literal["upsert", "rewrite"]
RerunKind = Literal["rerun", "settle", "backfill"]


class StoredState(NamedTuple):
    """A series' state in the ledger, at the last hour that it was computed for."""

    hour: int
    state: SeriesState


class Base(NamedTuple):
    """The state that a series was computed from; None where it started."""

    hour: int
    hash: str


class CurrentFile(NamedTuple):
    """A table file that counts, oldest first within its hour."""

    id: int
    path: str
    rows: int
    level: int


@dataclass(frozen=True)
class FileChange:
    """Files of one table and hour that come and go.

    Attributes:
        table: name of the table.
        added: the new file; None where only files go.
        level: how often its rows were merged.
        dropped: ids of the files that no longer count.
        operation: what the sink has to do; None where no row changed.
    """

    table: str
    added: TableFile | None
    level: int = 0
    dropped: tuple[int, ...] = ()
    operation: Operation | None = "upsert"


@dataclass(frozen=True)
class HourChange:
    """One hour's change and what it rests on.

    Attributes:
        hour: the hour.
        base_version: version of the partition that it was computed from; 0: none yet.
        settings: those it is computed under.
        bases: per series that starts from an earlier hour, its state there. What goes on from
            this hour's own state rests on `base_version`.
        states: per series, its state now.
        gone: series that no longer have a state in this hour.
        files: changed files.
        settled: True where the hour was computed whole after it had closed.
        whole: True where the hour was computed whole: earlier dirty marks are done.
        rows: rows computed now per table.
        anomalies: rows flagged now.
        kept_below: raw records before this offset were gone: their readings were taken; 0: none.
    """

    hour: int
    base_version: int
    settings: LineSettings
    bases: Mapping[SeriesKey, Base | None]
    states: Mapping[SeriesKey, SeriesState]
    files: tuple[FileChange, ...]
    gone: tuple[SeriesKey, ...] = ()
    settled: bool = False
    whole: bool = False
    rows: Mapping[str, int] = field(default_factory=dict)
    anomalies: int = 0
    kept_below: int = 0


class DirtyMark(NamedTuple):
    """An hour that must be computed again for a series, and why."""

    hour: int
    series: str
    reason: str
    rows: int


@dataclass(frozen=True)
class Commit:
    """One transaction.

    Attributes:
        line: name of the line.
        kind: `live` moves the watermark from lo to hi; others leave it.
        lo: first offset read.
        hi: offset behind the last one read.
        run_id: the run that did it.
        code_version: version of the code that computed it.
        hours: what changes.
        ranges: hours that the offsets [lo, hi) hold records of.
        narrower: where some of these have their records in a smaller range of offsets.
        dirty: new dirty marks.
        cleared: ids of dirty marks that this computation has done.
        counts: added to the running counts.
        lifecycle: births and deaths of Sparkplug nodes among the offsets [lo, hi).
        seconds: how long reading and computing took.
    """

    line: str
    kind: Literal["live", "rerun", "settle", "backfill"]
    lo: int
    hi: int
    run_id: str
    code_version: str
    hours: tuple[HourChange, ...]
    ranges: tuple[int, ...] = ()
    narrower: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    dirty: tuple[DirtyMark, ...] = ()
    cleared: tuple[int, ...] = ()
    counts: Counter[str] = field(default_factory=Counter)
    lifecycle: tuple[Event, ...] = ()
    seconds: float = 0.0
