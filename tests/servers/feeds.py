"""A capture log that grows while a real Dagster reads it."""

import itertools
import json
import random
import time
from collections.abc import Sequence

from iiot_platform.core.capture_log import GAP_TOPIC, Record
from iiot_platform.core.clock import MS_PER_HOUR, hour_of, now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from tests.servers.capture_log import write_segments
from tests.servers.engines import LINE
from tests.servers.streams import disturb, line_records

CLOSED_HOURS = 2
KEPT_BACK = 20
"""Messages of each line that come last, all of the open hour and in order."""
SLOW = "pressure"
_MIN_MS = 60_000
_OPEN_MS = 50 * _MIN_MS
_OPEN_FOR_MS = 20 * _MIN_MS
_SLOW_MS = 10 * _MIN_MS
_OUTAGE_MS = (40 * _MIN_MS, 55 * _MIN_MS)
_PAUSE_S = 4.0
_MOST = 25
_SCARCE = 100
_SEGMENT_ROWS = 5


def arrivals(line: str, seed: int, messages: int) -> list[Record]:
    """Closed hours of a line and the open one, as they arrive.

    With an outage, a clock that is slow, disorder within and across hours, late rows, duplicates,
    and what can not be decoded.
    """
    # an hour that stays open for some time yet
    start = (hour_of(now_ms() + _OPEN_FOR_MS) - CLOSED_HOURS) * MS_PER_HOUR
    spread = CLOSED_HOURS * MS_PER_HOUR + _OPEN_MS
    begin, end = (start + at for at in _OUTAGE_MS)
    sent = [
        record
        for record in line_records(seed, messages, spread_ms=spread, start_ms=start)
        if not begin <= record.received_ts // 1_000 < end
    ]
    told = json.dumps({"begin_ms": begin, "end_ms": end, "reason": "the broker was away"}).encode()
    sent.append(Record("mqtt", f"{GAP_TOPIC}mqtt", told, (end + 20) * 1_000))
    sent.sort(key=lambda record: record.received_ts)
    first = {record.payload: record.received_ts for record in reversed(sent)}
    arrived = disturb(sent[:-KEPT_BACK], seed) + sent[-KEPT_BACK:]
    received = itertools.accumulate((first.get(r.payload, 0) for r in arrived), max)
    return [
        _slowed(record)._replace(
            topic=record.topic.replace(f"{LINE}/", f"{line}/", 1), received_ts=at
        )
        for record, at in zip(arrived, received, strict=True)
    ]


def _slowed(record: Record) -> Record:
    """One device's clock is behind."""
    if not record.topic.endswith(f"/{SLOW}") or b"TimeStamp" not in record.payload:
        return record
    body = json.loads(record.payload)
    body["TimeStamp"] -= _SLOW_MS
    return record._replace(payload=json.dumps(body).encode())


class Feed:
    """Seals a few messages of a line at a time, some seconds after it has taken the last.

    Args:
        home: whose capture log.
        engine: knows what was taken.
        lines: the lines.
        messages: of each line, about.
        seed: of the messages and the pauses.
    """

    def __init__(
        self, home: Home, engine: Engine, lines: Sequence[str], messages: int, seed: int
    ) -> None:
        self._home = home
        self._engine = engine
        self._noise = random.Random(seed)
        self.records = {line: arrivals(line, seed + i, messages) for i, line in enumerate(lines)}
        self._written = dict.fromkeys(lines, 0)
        self._due = dict.fromkeys(lines, 0.0)

    def look(self) -> None:
        """Writes what is due."""
        for line, due in self._due.items():
            if time.monotonic() < due:
                continue
            self._due[line] = time.monotonic() + self._noise.uniform(0, _PAUSE_S)
            if self._engine.ledger.watermark(line) == self._written[line]:
                spare = len(self.records[line]) - self._written[line] - KEPT_BACK
                assert spare > 0, "the log is too short for all that happens"
                # a busy machine takes more batches for all that happens
                self._write(line, self._noise.randint(3, _MOST) if spare > _SCARCE else 1)

    def rest(self, *, but: int = 0) -> None:
        """Writes everything that is left, apart from some."""
        for line, records in self.records.items():
            self._write(line, len(records) - but - self._written[line])

    def _write(self, line: str, count: int) -> None:
        lo = self._written[line]
        chosen = self.records[line][lo : lo + count]
        _, self._written[line] = write_segments(self._home, line, chosen, rows=_SEGMENT_ROWS)
