"""What the buffer says of itself: counts by line and source, written for `iiot status`."""

import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from iiot_platform.core.capture_log import GAP_TOPIC, Record
from iiot_platform.core.clock import now_ms
from iiot_platform.metrics.families import Distribution

if TYPE_CHECKING:
    from buffer_service.delivery import Source

logger = logging.getLogger(__name__)

STATUS_FILE: Final = "status.json"
DEVICES_LIMIT: Final = 1_000
_RATE_WINDOW_S: Final = 10.0


class LineStatistics:
    """Counts of one line since the start."""

    def __init__(self, captured: int) -> None:
        self.captured = captured
        self.dropped = 0
        self.last_received_ms: int | None = None
        self.devices: dict[str, int] = {}
        """Topic to last receive time in ms, the longest silent first."""
        self._history: deque[tuple[float, int]] = deque([(time.monotonic(), captured)])

    def took(self, records: Sequence[Record]) -> None:
        """Count committed records."""
        self.captured += len(records)
        self.last_received_ms = records[-1].received_ts // 1_000
        devices = self.devices
        for topic, received in {r.topic: r.received_ts for r in records}.items():
            if topic.startswith(GAP_TOPIC):
                continue
            devices.pop(topic, None)
            devices[topic] = received // 1_000
        for topic in list(devices)[: len(devices) - DEVICES_LIMIT]:
            del devices[topic]

    def rate_per_s(self) -> float:
        """Messages per second over the last ten seconds or so."""
        now = time.monotonic()
        self._history.append((now, self.captured))
        while len(self._history) > 2 and now - self._history[1][0] > _RATE_WINDOW_S:  # noqa: PLR2004 - the ends of the window stay
            self._history.popleft()
        then, before = self._history[0]
        return (self.captured - before) / (now - then) if now > then else 0.0


class Durations:
    """Count, distribution, last and longest of something that is done again and again."""

    def __init__(self) -> None:
        self.count = 0
        self.distribution = Distribution()
        self.last_s = 0.0
        self.longest_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.distribution.add(seconds)
        self.last_s = seconds
        self.longest_s = max(self.longest_s, seconds)

    def report(self) -> dict[str, float]:
        """As numbers for the status file."""
        mean = self.distribution.total / self.count if self.count else 0.0
        return {
            "count": self.count,
            "mean_s": round(mean, 6),
            "last_s": round(self.last_s, 6),
            "longest_s": round(self.longest_s, 6),
        }


class Statistics:
    """Everything that status file and metrics tell; written by the commit thread alone."""

    def __init__(
        self, offsets: Mapping[str, int], lines: Sequence[str], sources: Sequence[str] = ()
    ) -> None:
        self.lines = {line: LineStatistics(offsets.get(line, 0)) for line in lines}
        self.received = dict.fromkeys(sources, 0)
        self.held = dict.fromkeys(sources, 0)
        """Messages drained from a source and not yet acknowledged to it."""
        self.commits = Durations()
        self.seals = Durations()
        self.segments = 0
        self.storage_error = ""
        self.seal_error = ""
        self.storage_failures = {"commit": 0, "seal": 0}
        self.missing_files: Sequence[str] = ()
        self.hot_rows = 0
        self.rebuilt = ""
        self.disk: Callable[[], dict[str, Any]] = dict
        self.upkeep: Callable[[], dict[str, Any]] = dict
        self.broker_drops: Callable[[], Mapping[str, int]] = dict
        """By source what its broker says that it has dropped; without those that say nothing."""
        self.plant_problem = ""
        """Why the plant file as it stands is not in force; written by whoever watches it."""
        self._started_ms = now_ms()

    def adopt(
        self, offsets: Mapping[str, int], lines: Sequence[str], sources: Sequence[str]
    ) -> None:
        """Count for these lines and sources from now on; what goes on keeps its counts.

        Readers of other threads see the old tables or the new ones, never one that changes.
        """
        before = self.lines
        self.lines = {
            line: before.get(line) or LineStatistics(offsets.get(line, 0)) for line in lines
        }
        self.received = {source: self.received.get(source, 0) for source in sources}
        self.held = {source: self.held.get(source, 0) for source in sources}

    def report(self, sources: "Sequence[Source]") -> dict[str, Any]:
        """The status as JSON-ready values; times are Unix milliseconds."""
        drops = self.broker_drops()
        return {
            "pid": os.getpid(),
            "started_ms": self._started_ms,
            "written_ms": now_ms(),
            "storage_error": self.storage_error,
            "plant_problem": self.plant_problem,
            "missing_files": list(self.missing_files),
            "rebuilt": self.rebuilt,
            "disk": self.disk(),
            "upkeep": self.upkeep(),
            "hot_rows": self.hot_rows,
            "commits": self.commits.report(),
            "seals": self.seals.report(),
            "sources": {
                source.name: {
                    "state": source.status.state,
                    "reason": source.status.reason,
                    "since_ms": source.status.since_ms,
                    **source.status.counts,
                    **({"broker_dropped": drops[source.name]} if source.name in drops else {}),
                }
                for source in sources
            },
            "lines": {
                name: {
                    "captured": line.captured,
                    "rate_per_s": round(line.rate_per_s(), 3),
                    "redeliveries_dropped": line.dropped,
                    "last_received_ms": line.last_received_ms,
                    "devices": dict(line.devices),
                }
                for name, line in self.lines.items()
            },
        }


def away_since(folder: Path) -> dict[str, int]:
    """For every source of an earlier run, when it was last known to receive (Unix ms)."""
    try:
        report = json.loads((folder / STATUS_FILE).read_text())
        written_ms = int(report["written_ms"])
        return {
            name: written_ms if source["state"] == "connected" else int(source["since_ms"])
            for name, source in report["sources"].items()
            if source.get("session", True)  # a broker that never let us in keeps nothing
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # the first start, or a file that a crash has cut: no gap can be told
        return {}


def write_status(folder: Path, report: Mapping[str, Any]) -> bool:
    """Replace the status file; False where the disk would not take it."""
    target = folder / STATUS_FILE
    temporary = folder / f"{STATUS_FILE}.tmp"
    try:
        temporary.write_text(json.dumps(report, indent=1))
        temporary.replace(target)
    except OSError as error:
        logger.debug("%s: can not be written: %s", target, error)
        return False
    return True
