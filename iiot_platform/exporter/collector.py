"""The platform's metrics, and what keeps it from being healthy and ready."""

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from iiot_platform.core.clock import MS_PER_S, from_ms, now_ms
from iiot_platform.engine.status import LineStatus
from iiot_platform.exporter.dagster_state import AWAY_S, DagsterState
from iiot_platform.exporter.pool_state import PoolState
from iiot_platform.exporter.watch import PlatformWatch
from iiot_platform.metrics import platform as declared
from iiot_platform.metrics.families import Families

STALLED_S: Final = 60.0
"""A look that takes longer never ends."""


class PlatformCollector(Collector):
    """The metrics of a platform.

    Args:
        watch: looks at it.
    """

    def __init__(self, watch: PlatformWatch) -> None:
        self._watch = watch

    def describe(self) -> Iterator[Family]:
        """The families without values."""
        return iter(Families(declared.METRICS))

    def collect(self) -> Iterator[Family]:
        """The families with the values of now; those that can not be read have none."""
        look = self._watch.look()
        families = Families(declared.METRICS)
        families.add(declared.LEDGER_UP, look.ledger)
        families.add(declared.READ_SECONDS, look.seconds)
        if look.status is not None:
            families.add(declared.CAPTURE_RUNNING, look.status.buffer.running)
            for line in look.status.lines:
                _add_line(families, line)
        for (name, kind), found in look.batches.items():
            families.add_distribution(declared.BATCH_SECONDS, found, name, kind)
        if look.pool is not None:
            _add_pool(families, look.pool)
        if look.dagster is not None:
            _add_dagster(families, look.dagster)
        if look.free_bytes is not None and look.size_bytes is not None:
            families.add(declared.FREE, look.free_bytes)
            families.add(declared.SIZE, look.size_bytes)
        return iter(families)


def _add_line(families: Families, line: LineStatus) -> None:
    name = line.line
    for metric, value in (
        (declared.LINE_CAPTURED, line.captured),
        (declared.LINE_CONSUMED, line.consumed),
        (declared.LAG_ROWS, line.lag_rows),
        (declared.LAG_SECONDS, line.lag_s),
        (declared.BATCHES, line.batches.count),
        (declared.ANOMALIES, line.anomalies),
        (declared.DUPLICATES, line.duplicates),
        (declared.LATE_ROWS, line.late_rows),
        (declared.DIRTY, len(line.dirty)),
        (declared.OUTDATED, line.outdated_hours),
    ):
        families.add(metric, value, name)
    if line.batches.last_ms is not None:
        families.add(declared.LAST_BATCH, line.batches.last_ms / MS_PER_S, name)
    for sink, state in line.sinks.items():
        families.add(declared.SINK_PENDING, state.pending, name, sink)
        families.add(declared.SINK_REJECTED, state.rejected, name, sink)
        families.add(declared.SINK_FAILURES, state.failures, name, sink)
    for table, rows in line.rows.items():
        families.add(declared.TABLE_ROWS, rows, name, table)
    for reason, count in line.quarantined.items():
        families.add(declared.QUARANTINED, count, name, reason)


def _add_pool(families: Families, pool: PoolState) -> None:
    families.add(declared.POOL_UP, not pool.problem)
    if not pool.problem:
        families.add(declared.POOL_WORKERS, pool.workers)
        families.add(declared.POOL_RUNNING, pool.running)
        families.add(declared.POOL_WAITING, pool.waiting)
        families.add(declared.POOL_MEMORY, pool.memory_bytes)


def _add_dagster(families: Families, dagster: DagsterState) -> None:
    for status, count in dagster.runs.items():
        families.add(declared.RUNS, count, status)
    for daemon, at_s in dagster.heartbeats.items():
        families.add(declared.HEARTBEAT, at_s, daemon.lower())


def unhealthy(watch: PlatformWatch) -> dict[str, str]:
    """What has stopped working and will not work again by itself."""
    looking_s = watch.looking_s()
    return {"exporter": f"has been reading for {looking_s:.0f} s"} if looking_s > STALLED_S else {}


def unready(watch: PlatformWatch) -> dict[str, str]:
    """Why rows do not become tables now."""
    look = watch.look()
    problems = {} if look.ledger else {"ledger": look.problem}
    if look.status is not None and not look.status.buffer.running:
        written = look.status.buffer.written_ms
        problems["buffer"] = (
            "never ran here"
            if written is None
            else f"not running since {from_ms(written):%Y-%m-%d %H:%M:%S} UTC"
        )
    if look.pool is not None and look.pool.problem:
        problems["pool"] = look.pool.problem
    if look.dagster is not None:
        problems |= _missing_daemons(look.dagster)
    return problems


def _missing_daemons(dagster: DagsterState) -> dict[str, str]:
    if dagster.problem:
        return {"dagster": dagster.problem}
    if not dagster.heartbeats:
        return {"daemon": "never ran here"}
    now = now_ms() / MS_PER_S
    return {
        f"daemon {name.lower()}": f"silent for {now - at_s:.0f} s"
        for name, at_s in dagster.heartbeats.items()
        if now - at_s > AWAY_S
    }
