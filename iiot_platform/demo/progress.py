"""How far the demo is: numbers read from the files that its processes write."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.status import PlantStatus, StatusReader


@dataclass(frozen=True)
class Published:
    """What a simulator says of its run; `per_line` and `live_since_ms` as it wrote them.

    Attributes:
        shown_per_line: OPC UA: distinct values that a subscriber gets; empty over MQTT.
    """

    phase: str = "starting"
    total: int = 0
    per_line: Mapping[str, int] = field(default_factory=dict)
    live_since_ms: int | None = None
    outstanding: int = 0
    shown_per_line: Mapping[str, int] = field(default_factory=dict)

    @property
    def expected(self) -> Mapping[str, int]:
        """Per line how many records the log must have gained at least."""
        return self.shown_per_line or self.per_line


class Simulation:
    """The counts of one simulator, over all its restarts.

    Args:
        path: its file.
        since_ms: when the demo was started; an older file is of an earlier one.
    """

    def __init__(self, path: Path, since_ms: int) -> None:
        self._path = path
        self._since_ms = since_ms
        self._earlier = Published()

    def restarts(self) -> None:
        """The simulator counts anew: keep what it has published until now."""
        self._earlier = self.published()

    def published(self) -> Published:
        """What it has published since the demo was started."""
        run, earlier = self._run_of_now(), self._earlier
        per_line = _sum(earlier.per_line, run.per_line)
        return Published(
            run.phase,
            sum(per_line.values()),
            per_line,
            run.live_since_ms,
            run.outstanding,
            _sum(earlier.shown_per_line, run.shown_per_line),
        )

    def _run_of_now(self) -> Published:
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return Published()
        if found["started_ms"] < self._since_ms:
            return Published()
        return Published(
            found["phase"],
            found["published"],
            found["published_per_line"],
            found["live_since_ms"],
            found["outstanding"],
            found["shown_per_line"],
        )


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return dict(Counter(one) + Counter(other))


@dataclass(frozen=True)
class Totals:
    """Numbers of all lines together."""

    captured: int
    consumed: int
    lag_rows: int
    lag_s: float
    batches: int
    anomalies: int
    quarantined: int
    duplicates: int

    @classmethod
    def of(cls, status: PlantStatus) -> "Totals":
        """The sums of a status; the lag in seconds is the longest."""
        lines = status.lines
        return cls(
            captured=sum(line.captured for line in lines),
            consumed=sum(line.consumed for line in lines),
            lag_rows=sum(line.lag_rows for line in lines),
            lag_s=max((line.lag_s for line in lines), default=0.0),
            batches=sum(line.batches.count for line in lines),
            anomalies=sum(line.anomalies for line in lines),
            quarantined=sum(sum(line.quarantined.values()) for line in lines),
            duplicates=sum(line.duplicates for line in lines),
        )


class Progress:
    """Counts since the demo has been started, although its home may be older.

    Args:
        home: the demo's home.
        lines: the lines of its plant.
    """

    def __init__(self, home: Home, lines: tuple[str, ...]) -> None:
        self._home = home
        self._reader = StatusReader(home, lines)
        self.started_ms = now_ms()
        self.mqtt = Simulation(home.simulator / "stats.json", self.started_ms)
        self.opcua = Simulation(home.simulator / "opcua_stats.json", self.started_ms)
        self.first_commit_ms: int | None = None
        self.status = self._reader.read()
        self.before = self.status

    def close(self) -> None:
        """Closes what was opened."""
        self._reader.close()

    def look(self) -> PlantStatus:
        """Reads the status anew."""
        self.status = self._reader.read()
        if self.first_commit_ms is None:
            news = [
                line.batches.last_ms
                for line in self.status.lines
                if line.batches.last_ms is not None and line.batches.last_ms >= self.started_ms
            ]
            self.first_commit_ms = min(news, default=None)
        return self.status

    def buffer_connected(
        self, pid: int | None, settled_ms: int, sources: Iterable[str] | None = None
    ) -> bool:
        """True once the buffer of this process id has been connected (to these) for some time."""
        try:
            reported = json.loads((self._home.capture / "status.json").read_bytes())
        except (OSError, ValueError):
            return False
        found = reported["sources"]
        return reported["pid"] == pid and all(
            found[name]["state"] == "connected" and now_ms() - found[name]["since_ms"] >= settled_ms
            for name in (found if sources is None else sources)
        )

    def since_start(self) -> Totals:
        """The totals of now less those of the start; the lag as it is."""
        now, before = Totals.of(self.status), Totals.of(self.before)
        return Totals(
            captured=now.captured - before.captured,
            consumed=now.consumed - before.consumed,
            lag_rows=now.lag_rows,
            lag_s=now.lag_s,
            batches=now.batches - before.batches,
            anomalies=now.anomalies - before.anomalies,
            quarantined=now.quarantined - before.quarantined,
            duplicates=now.duplicates - before.duplicates,
        )

    def per_line(self) -> dict[str, tuple[int, int]]:
        """The offsets [lo, hi) that each line's log has gained since the start."""
        before = {line.line: line.captured for line in self.before.lines}
        return {line.line: (before.get(line.line, 0), line.captured) for line in self.status.lines}

    def rows(self) -> dict[str, int]:
        """The rows that each table has gained since the start, of all lines together."""
        rows: dict[str, int] = {}
        for status, sign in ((self.status, 1), (self.before, -1)):
            for line in status.lines:
                for table, count in line.rows.items():
                    rows[table] = rows.get(table, 0) + sign * count
        return {table: count for table, count in sorted(rows.items()) if table != "activity"}
