"""The buffer's metrics, read from what it counts anyway; a message costs nothing for them."""

import shutil
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from buffer_service.broker_watch import BrokerWatch
from buffer_service.service import CaptureService
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.core.paths import Home
from iiot_platform.metrics import buffer as declared
from iiot_platform.metrics.families import Families
from iiot_platform.metrics.metric import Metric

STALLED_S = 30.0
"""A commit loop that has not turned for longer does not work any more."""
_COUNTS: Mapping[str, Metric] = {
    "qos0_dropped": declared.DROPPED,
    "sessions_lost": declared.SESSIONS_LOST,
    "unmatched": declared.UNMATCHED,
    "not_good": declared.NOT_GOOD,
    "refused_nodes": declared.REFUSED_NODES,
}


class BufferCollector(Collector):
    """The metrics of a running buffer.

    Args:
        service: the buffer.
        home: where its log lies.
        watches: drop counters of brokers.
    """

    def __init__(
        self,
        service: CaptureService,
        home: Home,
        watches: Sequence[BrokerWatch] = (),
    ) -> None:
        self._service = service
        self._folder = home.capture
        self._watches = watches

    def describe(self) -> Iterator[Family]:
        """The families without values."""
        return iter(Families(declared.METRICS))

    def collect(self) -> Iterator[Family]:
        """The families with the values of now."""
        families = Families(declared.METRICS)
        self._add_sources(families)
        self._add_lines(families)
        self._add_storage(families)
        return iter(families)

    def _add_sources(self, families: Families) -> None:
        counts = self._service.counts
        for source in self._service.sources:
            name, status = source.name, source.status
            connects = status.counts["connects"]
            unacknowledged = counts.held.get(name, 0) + status.counts["waiting"]
            families.add(declared.RECEIVED, counts.received.get(name, 0), name)
            families.add(declared.CONNECTED, status.state == "connected", name)
            families.add(declared.RECONNECTS, max(0, connects - 1), name)
            families.add(declared.UNACKNOWLEDGED, unacknowledged, name)
            families.add(declared.GAPS, status.counts.get("gaps", 0), name)
            for count, metric in _COUNTS.items():
                if count in status.counts:
                    families.add(metric, status.counts[count], name)
        for watch in self._watches:
            if watch.dropped is not None:
                families.add(declared.BROKER_DROPS, watch.dropped, watch.source)

    def _add_lines(self, families: Families) -> None:
        plant = self._service.plant
        lines = self._service.counts.lines
        for name in plant.line_names:
            line = lines.get(name)
            if line is None:  # it has just come, or gone
                continue
            families.add(declared.CAPTURED, line.captured, plant.source_of(name).name, name)
            families.add(declared.REDELIVERIES, line.dropped, name)
            if line.last_received_ms is not None:
                families.add(declared.LAST_RECEIVED, line.last_received_ms / MS_PER_S, name)

    def _add_storage(self, families: Families) -> None:
        counts = self._service.counts
        families.add_distribution(declared.COMMIT_SECONDS, counts.commits.distribution)
        families.add_distribution(declared.SEAL_SECONDS, counts.seals.distribution)
        families.add(declared.SEGMENTS, counts.segments)
        families.add(declared.HOT_ROWS, counts.hot_rows)
        for operation, failures in counts.storage_failures.items():
            families.add(declared.STORAGE_ERRORS, failures, operation)
        failing = bool(counts.storage_error or counts.seal_error)
        families.add(declared.STORAGE_FAILING, failing)
        families.add(declared.MISSING_FILES, len(counts.missing_files))
        space = shutil.disk_usage(self._folder)
        families.add(declared.FREE, space.free)
        families.add(declared.SIZE, space.total)


def unhealthy(service: CaptureService) -> dict[str, str]:
    """What has stopped working and will not work again by itself."""
    problems = {}
    since_s = service.stopped_turning_s()
    if since_s is None:
        problems["commit"] = "the thread does not run"
    elif since_s > STALLED_S:
        problems["commit"] = f"nothing was committed or tried for {since_s:.0f} s"
    for source in service.sources:
        if not source.works:
            problems[f"source {source.name}"] = "its thread or task does not run"
    return problems


def unready(service: CaptureService) -> dict[str, str]:
    """Why nothing can be captured now, or not everything."""
    problems = unhealthy(service)
    counts = service.counts
    if counts.storage_error or counts.seal_error:
        problems["storage"] = counts.storage_error or counts.seal_error
    if counts.missing_files:
        problems["log"] = f"{len(counts.missing_files)} segments of the manifest are missing"
    for source in service.sources:
        state, reason, *_ = source.status
        if state != "connected":
            problems[f"source {source.name}"] = f"{state}: {reason}" if reason else state
    return problems
