"""How far the demo is: numbers read from the files that its processes write."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.status import PlantStatus, StatusReader


@dataclass(frozen=True)
class Published:
    """What the simulator says of its run; `per_line` and `live_since_ms` as it wrote them."""

    phase: str = "starting"
    total: int = 0
    per_line: Mapping[str, int] = field(default_factory=dict)
    live_since_ms: int | None = None
    outstanding: int = 0


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
        self._earlier: dict[str, int] = {}
        self._published = Published()
        self.started_ms = now_ms()
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

    def buffer_connected(self, pid: int | None, settled_ms: int) -> bool:
        """True once the buffer of this process id has been connected for some time."""
        try:
            reported = json.loads((self._home.capture / "status.json").read_bytes())
        except (OSError, ValueError):
            return False
        return reported["pid"] == pid and all(
            source["state"] == "connected" and now_ms() - source["since_ms"] >= settled_ms
            for source in reported["sources"].values()
        )

    def simulator_restarts(self) -> None:
        """The simulator counts anew: keep what it has published until now."""
        for line, count in self._run_of_now().per_line.items():
            self._earlier[line] = self._earlier.get(line, 0) + count

    def published(self) -> Published:
        """What the simulator has published since the demo was started."""
        run = self._run_of_now()
        per_line = dict(self._earlier)
        for line, count in run.per_line.items():
            per_line[line] = per_line.get(line, 0) + count
        return Published(
            run.phase, sum(per_line.values()), per_line, run.live_since_ms, run.outstanding
        )

    def _run_of_now(self) -> Published:
        try:
            found = json.loads((self._home.simulator / "stats.json").read_bytes())
        except (OSError, ValueError):
            return Published()
        if found["started_ms"] < self.started_ms:
            return Published()
        return Published(
            found["phase"],
            found["published"],
            found["published_per_line"],
            found["live_since_ms"],
            found["outstanding"],
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
