"""Where a plant stands: what was captured, what was computed, and what lies between."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import sqlalchemy as sa

from iiot_platform.core.clock import MS_PER_S, now_ms, partition_key
from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.log_reader import LogReader

BUFFER_STATUS_FILE: Final = "status.json"
_SILENT_MS: Final = 10_000
_NEWEST_BATCHES: Final = 100
_QUARANTINED: Final = "quarantined."
_LEVELS: Final = {"ok": 0, "low": 1, "full": 2}
_CONDITION: Final = frozenset({"state", "reason", "since_ms"})
"""What a source says of itself beside its counts."""


@dataclass(frozen=True)
class BufferState:
    """What the buffer last said of itself; times in Unix ms.

    Attributes:
        running: True where it has written its status within the last ten seconds.
        written_ms: when it last did; None: never.
        storage_error: why it can not store, else empty.
        sources: per source its state and the reason for it.
        redeliveries_dropped: messages that the broker sent again and that were there already.
        disk: 0: it has room; 1: it is getting full; 2: nothing more is taken; None: not known.
        disk_message: what the buffer says of it, where it is getting full.
        warnings: what a person should look after: a broken plant file, the disk, damaged or
            missing segments, raw records that should go and stay.
        hot_rows: records that are durable and not yet sealed.
        commits: `count`, and the seconds `mean_s`, `last_s` and `longest_s` since its start.
        seals: likewise.
        counts: what each source has counted since the start.
        free_bytes: free space where the log lies; None where it has not said.
        size_bytes: size of that file system.
    """

    running: bool = False
    written_ms: int | None = None
    storage_error: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    redeliveries_dropped: int = 0
    disk: int | None = None
    disk_message: str = ""
    warnings: tuple[str, ...] = ()
    hot_rows: int = 0
    commits: Mapping[str, float] = field(default_factory=dict)
    seals: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    free_bytes: int | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class BatchState:
    """The live batches of a line; seconds are those of the newest hundred."""

    count: int = 0
    last_ms: int | None = None
    seconds_p50: float | None = None
    seconds_p95: float | None = None


@dataclass(frozen=True)
class SinkState:
    """What one database behind the tables has not been given of a line."""

    pending: int = 0
    rejected: int = 0
    failures: int = 0
    message: str = ""


@dataclass(frozen=True)
class LineStatus:
    """One line; times in Unix ms.

    Attributes:
        line: name of the line.
        captured: records that are durable in the log, sealed or not.
        consumed: records that are in the tables: the watermark.
        lag_rows: captured and not consumed.
        lag_s: how long the oldest sealed record that is not consumed has been waiting.
        rate_per_s: messages per second that the buffer sees.
        devices: topic to receive time of its last message.
        quarantined: messages set aside, by reason.
        batches: live batches.
        rows: rows that stand in each table.
        anomalies: rows flagged by live batches.
        duplicates: readings left out, because they had come before.
        late_rows: readings that came after their hour and were left to a rerun.
        dirty: hours that must be computed again, with the reasons.
        outdated_hours: hours that are computed under other settings than the current ones.
        sinks: backlog of each database that follows the line.
    """

    line: str
    captured: int = 0
    consumed: int = 0
    lag_rows: int = 0
    lag_s: float = 0.0
    rate_per_s: float = 0.0
    devices: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)
    batches: BatchState = BatchState()
    rows: Mapping[str, int] = field(default_factory=dict)
    anomalies: int = 0
    duplicates: int = 0
    late_rows: int = 0
    dirty: Mapping[str, list[str]] = field(default_factory=dict)
    outdated_hours: int = 0
    sinks: Mapping[str, SinkState] = field(default_factory=dict)


@dataclass(frozen=True)
class PlantStatus:
    """A plant at one moment (Unix ms)."""

    at_ms: int
    buffer: BufferState
    lines: tuple[LineStatus, ...]

    def as_json(self) -> dict[str, Any]:
        """As values that JSON knows."""
        return asdict(self)


class StatusReader:
    """Reads the status below one home again and again; needs neither buffer nor Dagster.

    Args:
        home: where the log, the tables and the ledger are.
        lines: lines to show although nothing has come of them.
        current: version of the current settings of each line, where that is known.
    """

    def __init__(
        self,
        home: Home,
        lines: Iterable[str] = (),
        *,
        current: Mapping[str, str] | None = None,
    ) -> None:
        self._home = home
        self._lines = tuple(lines)
        self._current = dict(current or {})
        self._log = LogReader(home)
        self._ledger: Ledger | None = None

    def close(self) -> None:
        """Closes the ledger."""
        if self._ledger is not None:
            self._ledger.close()

    @property
    def ledger(self) -> Ledger | None:
        """The ledger of what was read; None where there was none."""
        return self._ledger

    def read(self) -> PlantStatus:
        """The status now.

        Raises:
            StorageError: the log or the ledger is there and can not be read.
        """
        now = now_ms()
        reported = self._reported()
        if self._ledger is None and Ledger.is_at(self._home):
            self._ledger = Ledger.of(self._home)
        computed = {} if self._ledger is None else _computed(self._ledger)
        names = [*self._lines, *reported["lines"], *computed, *self._log.streams()]
        return PlantStatus(
            now,
            _buffer(reported, now),
            tuple(
                self._line(name, reported["lines"].get(name, {}), computed.get(name), now)
                for name in dict.fromkeys(names)
            ),
        )

    def _reported(self) -> dict[str, Any]:
        """The buffer's status file; nothing known where there is none yet."""
        path = self._home.capture / BUFFER_STATUS_FILE
        try:
            reported = json.loads(path.read_bytes())
        except (OSError, ValueError):
            reported = {}
        return {"lines": {}, "sources": {}, **reported}

    def _line(
        self, name: str, reported: Mapping[str, Any], computed: "_Computed | None", now: int
    ) -> LineStatus:
        computed = computed or _Computed()
        consumed = computed.watermark
        head = self._log.head(name)
        captured = max(head, int(reported.get("captured", 0)))
        waiting = self._log.segments(name, consumed, consumed + 1) if head > consumed else []
        since = waiting[0].max_received // 1_000 if waiting else now
        quarantined = {
            key.removeprefix(_QUARANTINED): count
            for key, count in sorted(computed.counts.items())
            if key.startswith(_QUARANTINED)
        }
        return LineStatus(
            line=name,
            captured=captured,
            consumed=consumed,
            lag_rows=captured - consumed,
            lag_s=max(0, now - since) / MS_PER_S,
            rate_per_s=float(reported.get("rate_per_s", 0.0)),
            devices=dict(reported.get("devices", {})),
            quarantined=quarantined,
            batches=computed.batches,
            rows=dict(computed.rows),
            anomalies=computed.counts.get("anomalies", 0),
            duplicates=computed.counts.get("duplicates", 0),
            late_rows=computed.counts.get("late_rows", 0),
            dirty={partition_key(hour): sorted(why) for hour, why in computed.dirty.items()},
            outdated_hours=sum(
                hours
                for version, hours in computed.hours.items()
                if name in self._current and version != self._current[name]
            ),
            sinks=computed.sinks,
        )


@dataclass
class _Computed:
    """What the ledger says of one line."""

    watermark: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    dirty: dict[int, set[str]] = field(default_factory=dict)
    hours: dict[str, int] = field(default_factory=dict)
    batches: BatchState = BatchState()
    sinks: Mapping[str, SinkState] = field(default_factory=dict)


def _buffer(reported: Mapping[str, Any], now: int) -> BufferState:
    written = reported.get("written_ms")
    disk = reported.get("disk", {})
    return BufferState(
        running=written is not None and now - written < _SILENT_MS,
        written_ms=written,
        storage_error=str(reported.get("storage_error", "")),
        sources={
            name: f"{source['state']}: {source['reason']}" if source["reason"] else source["state"]
            for name, source in reported["sources"].items()
        },
        redeliveries_dropped=sum(
            line["redeliveries_dropped"] for line in reported["lines"].values()
        ),
        disk=_LEVELS.get(disk.get("level", "")),
        disk_message=str(disk.get("message", "")),
        warnings=_warnings(reported),
        hot_rows=int(reported.get("hot_rows", 0)),
        commits=dict(reported.get("commits", {})),
        seals=dict(reported.get("seals", {})),
        counts={
            name: {what: count for what, count in source.items() if what not in _CONDITION}
            for name, source in reported["sources"].items()
        },
        free_bytes=disk.get("free") if disk.get("total") else None,
        size_bytes=disk.get("total") or None,
    )


def _warnings(reported: Mapping[str, Any]) -> tuple[str, ...]:
    disk, upkeep = reported.get("disk", {}), reported.get("upkeep", {})
    missing, damaged = reported.get("missing_files", []), upkeep.get("damaged", [])
    rebuilt, plant = reported.get("rebuilt", ""), reported.get("plant_problem", "")
    found = [
        f"the plant file is broken, the buffer goes on with the one before: {plant}"
        if plant
        else "",
        # where it is full, that is why nothing is stored, and said so already
        disk.get("message", "") if disk.get("level") == "low" else "",
        f"{len(missing)} segments are missing, the first is {missing[0]}" if missing else "",
        f"{len(damaged)} segments were damaged and are set aside, the last is {damaged[-1]}"
        if damaged
        else "",
        f"the manifest was made anew: {rebuilt}" if rebuilt else "",
        upkeep.get("retention", ""),
        f"the log can not be looked after: {upkeep['error']}" if upkeep.get("error") else "",
    ]
    return tuple(filter(None, found))


def _computed(ledger: Ledger) -> dict[str, _Computed]:
    """All lines of the ledger, of one moment."""
    lines: dict[str, _Computed] = defaultdict(_Computed)
    with ledger.reading() as connection:
        for line, watermark in connection.execute(sa.select(db.LINES)):
            lines[line].watermark = watermark
        for line, name, count in connection.execute(sa.select(db.COUNTS)):
            lines[line].counts[name] = count
        for line, table, rows in connection.execute(_ROWS):
            lines[line].rows[table] = int(rows)
        for line, hour, reason in connection.execute(_DIRTY):
            lines[line].dirty.setdefault(hour, set()).add(reason)
        for line, version, hours in connection.execute(_HOURS):
            lines[line].hours[version] = int(hours)
        sinks = _sinks(connection)
        for line, computed in lines.items():
            computed.batches = _batches(connection, line, computed.counts.get("batches", 0))
            computed.sinks = sinks.get(line, {})
    return dict(lines)


_ROWS: Final = (
    sa.select(db.FILES.c.line, db.FILES.c.table_name, sa.func.sum(db.FILES.c.rows))
    .where(db.FILES.c.dropped_version.is_(None))
    .group_by(db.FILES.c.line, db.FILES.c.table_name)
)
_DIRTY: Final = sa.select(db.DIRTY.c.line, db.DIRTY.c.hour, db.DIRTY.c.reason).distinct()
_HOURS: Final = sa.select(
    db.PARTITIONS.c.line, db.PARTITIONS.c.settings_version, sa.func.count()
).group_by(db.PARTITIONS.c.line, db.PARTITIONS.c.settings_version)
_PENDING: Final = sa.select(
    db.OUTBOX.c.sink,
    db.OUTBOX.c.line,
    sa.func.count().label("pending"),
    sa.func.count(db.OUTBOX.c.rejected).label("rejected"),
).group_by(db.OUTBOX.c.sink, db.OUTBOX.c.line)


def _batches(connection: sa.Connection, line: str, count: int) -> BatchState:
    query = (
        sa.select(db.BATCHES.c.committed_ms, db.BATCHES.c.seconds)
        .where(db.BATCHES.c.line == line, db.BATCHES.c.kind == "live")
        .order_by(db.BATCHES.c.id.desc())
        .limit(_NEWEST_BATCHES)
    )
    newest = connection.execute(query).all()
    if not newest:
        return BatchState(count)
    seconds = [row.seconds for row in newest]
    p50, p95 = (round(float(q), 4) for q in np.quantile(seconds, (0.5, 0.95)))
    return BatchState(count, newest[0].committed_ms, p50, p95)


def _sinks(connection: sa.Connection) -> dict[str, dict[str, SinkState]]:
    """By line and sink, those that follow a line or have followed it."""
    pending = {(row.sink, row.line): row for row in connection.execute(_PENDING)}
    failing = {(row.sink, row.line): row for row in connection.execute(sa.select(db.SINKS))}
    feeds = {(row.sink, row.line) for row in connection.execute(sa.select(db.FEEDS))}
    found: dict[str, dict[str, SinkState]] = defaultdict(dict)
    for sink, line in sorted(feeds | pending.keys() | failing.keys()):
        found[line][sink] = _sink(pending.get((sink, line)), failing.get((sink, line)))
    return found


def _sink(pending: Any, failing: Any) -> SinkState:
    return SinkState(
        pending=pending.pending - pending.rejected if pending else 0,
        rejected=pending.rejected if pending else 0,
        failures=failing.failures if failing else 0,
        message=failing.message if failing else "",
    )
