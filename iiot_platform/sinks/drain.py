"""Bring a sink up to date from the outbox: in order, within a time, outside the live computation.

Each entry stays pending until the sink has all of it. An interrupted one is done again from its
start, its delete included, which ends in the same state.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeVar

import pyarrow as pa

from iiot_platform.core import clock, schema
from iiot_platform.core.errors import SinkError
from iiot_platform.sinks.refusals import RefusedError
from iiot_platform.sinks.sink import Sink

PAGE: Final = 256
"""Entries that are read from the outbox at a time."""
_FIRST_BACKOFF_MS: Final = 1_000
_MAX_BACKOFF_MS: Final = 60_000

_log = logging.getLogger(__name__)


class OutboxEntry(Protocol):
    """One thing that the sink does not have yet.

    An `upsert` adds or replaces rows; a `rewrite` replaces a table's whole hour.
    """

    @property
    def id(self) -> int:
        """Place in the outbox."""

    @property
    def table(self) -> str:
        """Name of the table."""

    @property
    def hour(self) -> int:
        """Hour of event time."""

    @property
    def operation(self) -> Literal["upsert", "rewrite"]:
        """What is to be done."""


Entry = TypeVar("Entry", bound=OutboxEntry)


class Outbox(Protocol[Entry]):
    """The backlog of a line's sink; an entry is pending until it is done or rejected."""

    def pending(self, line: str, limit: int) -> Sequence[Entry]:
        """The first pending entries, in the order in which they must be done."""

    def backlog(self, line: str) -> int:
        """How many entries are pending."""

    def rows(self, entry: Entry) -> pa.Table:
        """An upsert's rows; all current rows of a rewrite's hour."""

    def begin(self, entry: Entry) -> None:
        """Journal a rewrite before its delete; the entry stays pending."""

    def done(self, entries: Sequence[Entry]) -> None:
        """The sink has these; clears the line's failures."""

    def reject(self, entry: Entry, message: str) -> None:
        """Set aside an entry of which the sink refuses rows, for a person to look at."""

    def failed(self, line: str, message: str, retry_at_ms: int) -> None:
        """The sink failed; nobody tries again before `retry_at_ms`."""

    def failures(self, line: str) -> int:
        """Failures since an entry was last done or rejected."""

    def retry_at(self, line: str) -> int | None:
        """The time of the last `failed`, None after a success."""


@dataclass
class DrainReport:
    """What a drain did.

    Attributes:
        points: points that the sink took.
        dropped: rows that had nothing to store.
        entries: entries done.
        rejected: entries set aside.
        remaining: entries still pending.
        seconds: wall time.
        error: why the drain stopped before its time, or None.
    """

    points: int = 0
    dropped: int = 0
    entries: int = 0
    rejected: int = 0
    remaining: int = 0
    seconds: float = 0.0
    error: str | None = None

    def add(self, later: "DrainReport") -> None:
        """Takes what a later drain of the same line did."""
        self.points += later.points
        self.dropped += later.dropped
        self.entries += later.entries
        self.rejected += later.rejected
        self.seconds += later.seconds
        self.remaining, self.error = later.remaining, later.error


def drain(
    outbox: Outbox[Entry],
    sink: Sink,
    line: str,
    *,
    deadline_s: float,
    now_ms: Callable[[], int] = clock.now_ms,
) -> DrainReport:
    """Do pending entries until none is left, the time is up or the sink fails.

    An entry that has begun is finished, so that a short deadline still makes progress. While a
    failure's back-off lasts, nothing is tried.

    Raises:
        StorageError: the outbox itself can not be read or written.
    """
    started = time.monotonic()
    report = DrainReport()
    retry_at = outbox.retry_at(line)
    if retry_at is not None and now_ms() < retry_at:
        wait_s = (retry_at - now_ms()) / clock.MS_PER_S
        report.error = f"the sink of line '{line}' is left alone for another {wait_s:.1f} s"
    else:
        try:
            _drain_pages(outbox, sink, line, report, until=started + deadline_s)
        except SinkError as error:
            report.error = str(error)
            delay_ms = min(_FIRST_BACKOFF_MS << min(outbox.failures(line), 16), _MAX_BACKOFF_MS)
            outbox.failed(line, report.error, now_ms() + delay_ms)
    report.remaining = outbox.backlog(line)
    report.seconds = time.monotonic() - started
    return report


def _drain_pages(
    outbox: Outbox[Entry], sink: Sink, line: str, report: DrainReport, *, until: float
) -> None:
    while page := outbox.pending(line, PAGE):
        for group, rows in _groups(outbox, page, sink.request_rows):
            _do(outbox, sink, line, group, rows, report)
            if time.monotonic() >= until:
                return


def _groups(
    outbox: Outbox[Entry], page: Iterable[Entry], request_rows: int
) -> Iterable[tuple[list[Entry], list[pa.Table]]]:
    """Consecutive upserts of one table up to a request's size; a rewrite stands alone.

    Tables do not depend on each other: each one's entries stay in order, and are brought together
    so that a backlog of many small batches fills requests.
    """
    group: list[Entry] = []
    parts: list[pa.Table] = []
    for entry in sorted(page, key=lambda entry: entry.table):  # stable
        rows = outbox.rows(entry)
        if group and not (
            entry.operation == group[-1].operation == "upsert"
            and entry.table == group[-1].table
            and sum(part.num_rows for part in parts) + rows.num_rows <= request_rows
        ):
            yield group, parts
            group, parts = [], []
        group.append(entry)
        parts.append(rows)
    if group:
        yield group, parts


def _do(
    outbox: Outbox[Entry],
    sink: Sink,
    line: str,
    group: list[Entry],
    parts: list[pa.Table],
    report: DrainReport,
) -> None:
    entry = group[0]
    table = schema.TABLES[entry.table]
    try:
        if entry.operation == "rewrite":
            start_ms = clock.hour_start_ms(entry.hour)
            outbox.begin(entry)
            end_ms = start_ms + clock.MS_PER_HOUR
            written = sink.rewrite(table, line, start_ms, end_ms, pa.concat_tables(parts))
        else:
            written = sink.write(table, pa.concat_tables(parts))
    except RefusedError as error:
        if len(group) > 1:  # find the entry that is refused
            for one, rows in zip(group, parts, strict=True):
                _do(outbox, sink, line, [one], [rows], report)
            return
        message = f"outbox entry {entry.id}, hour {clock.partition_key(entry.hour)}: {error}"
        _log.error("line '%s': %s", line, message)
        outbox.reject(entry, message)
        report.rejected += 1
        return
    outbox.done(group)
    report.entries += len(group)
    report.points += written.points
    report.dropped += written.dropped
