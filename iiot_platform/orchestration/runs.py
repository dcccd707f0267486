"""What runs do: take a batch, compute hours again, hand over to the databases."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dagster import AssetCheckKey, AssetExecutionContext, DagsterLogManager, OpExecutionContext

from iiot_platform.core.clock import hour_from_key, partition_key
from iiot_platform.core.errors import PlatformError
from iiot_platform.core.schema import READINGS
from iiot_platform.engine.consumed import publish
from iiot_platform.engine.engine import Engine, RerunKind
from iiot_platform.engine.errors import CommitLostError
from iiot_platform.engine.report import BatchReport, HourReport
from iiot_platform.orchestration import checks
from iiot_platform.orchestration.events import Event, Reporter, batch_metadata, batch_tables
from iiot_platform.orchestration.inputs import inputs
from iiot_platform.orchestration.installation import Installation, until_committed
from iiot_platform.orchestration.naming import ASSET_TABLES, LineNames

if TYPE_CHECKING:  # the client behind it takes long to import, and is not always needed
    from iiot_platform.sinks.drain import DrainReport

LIVE_DRAIN_S: Final = 1.0
"""How long a live run feeds each database; a longer backlog has a run of its own."""
RERUN_DRAIN_S: Final = 60.0
"""Likewise a run that computed whole hours."""
CATCH_UP_S: Final = 600.0
"""How long a run that does nothing else feeds those that are behind; the next one goes on."""
_WAIT_S: Final = 10.0

Context = AssetExecutionContext | OpExecutionContext


@dataclass(frozen=True)
class LineRuns:
    """The work of one line's runs; every event is told after the ledger has committed.

    Events are yielded: those that are logged reach Dagster only when the step ends well.

    Attributes:
        installation: what they work on.
        reporter: what they tell.
    """

    installation: Installation
    reporter: Reporter

    @property
    def names(self) -> LineNames:
        """What the line is called."""
        return self.reporter.names

    @property
    def engine(self) -> Engine:
        """The engine."""
        return self.installation.engine

    def take_batch(self, context: OpExecutionContext) -> Iterator[Event]:
        """Takes what lies behind the watermark, whatever the run's tags say."""
        line, row_cap = self.names.line, self.installation.plant.batches.row_cap
        report = until_committed(
            lambda: self.engine.run_batch(line, run_id=context.run.run_id, row_cap=row_cap)
        )
        if report is None:
            context.log.info("line '%s': nothing behind the watermark", line)
        else:
            yield from self._tell_batch(context, report)
        yield from self.deliver(context, LIVE_DRAIN_S)

    def _tell_batch(self, context: OpExecutionContext, report: BatchReport) -> Iterator[Event]:
        metadata = {
            **batch_metadata(report),
            **inputs(self.engine.log, report.line, [(report.lo, report.hi)]),
        }
        context.log.info(
            "line '%s': offsets [%d, %d) in %.2f s, %d records behind",
            report.line,
            report.lo,
            report.hi,
            report.seconds,
            report.lag_rows,
        )
        told = [hour for hour in report.hours if self._shown(context.log, hour.hour)]
        found = checks.completeness(self.engine, report.line, [(report.lo, report.hi)])
        for hour in told:
            yield from self.reporter.tables(hour, batch_tables(hour), metadata)
            yield self.reporter.completeness(found, hour.hour)
        if told:
            yield self.reporter.lag(self._lag(), told[-1].hour)

    def compute_hours(
        self,
        context: AssetExecutionContext,
        keys: Sequence[str],
        tables: Iterable[str],
        wanted: Iterable[AssetCheckKey],
    ) -> Iterator[Event]:
        """Computes hours whole under the current settings, oldest first."""
        chosen, chosen_checks = set(tables), set(wanted)
        hours = sorted(hour_from_key(key) for key in keys)
        for number, hour in enumerate(hours, 1):
            report = yield from self.compute_hour(
                context, hour, kind="backfill", tables=chosen, wanted=chosen_checks
            )
            context.log.info(
                "hour %d of %d, %s: %d readings, version %d",
                number,
                len(hours),
                partition_key(hour),
                report.total.get(READINGS.name, 0),
                report.version,
            )
        yield from self.deliver(context, RERUN_DRAIN_S)

    def compute_hour(
        self,
        context: Context,
        hour: int,
        *,
        kind: RerunKind,
        tables: Iterable[str] = tuple(ASSET_TABLES),
        wanted: Iterable[AssetCheckKey] | None = None,
    ) -> Generator[Event, None, HourReport]:
        """Computes one hour whole; a backfill assigns the current settings, others keep theirs.

        Of an hour that has closed it is told whether that is what stood.
        """
        line, started = self.names.line, self.installation.clock()
        closed = not self.engine.is_open(hour)
        found = until_committed(
            lambda: self.engine.rerun(
                line,
                hour,
                run_id=context.run.run_id,
                settings="current" if kind == "backfill" else "keep",
                kind=kind,
            )
        )
        report = found.report
        ranges = self.engine.ledger.ranges(line, hour)
        metadata = {
            "seconds": (self.installation.clock() - started) / 1_000,
            **inputs(self.engine.log, line, ranges),
        }
        if not self._shown(context.log, hour):
            return report
        chosen = set(tables)
        yield from self.reporter.tables(report, [t for t in ASSET_TABLES if t in chosen], metadata)
        every = {self.names.completeness, self.names.lag_within_bound, self.names.live_equals_rerun}
        asked = every if wanted is None else set(wanted)
        if self.names.live_equals_rerun in asked and closed:
            yield self.reporter.live_equals_rerun(found)
        if self.names.completeness in asked:
            complete = checks.completeness(self.engine, line, ranges)
            yield self.reporter.completeness(complete, hour)
        if self.names.lag_within_bound in asked:
            yield self.reporter.lag(self._lag(), hour)
        return report

    def settle(
        self, context: OpExecutionContext, hours: Sequence[int], *, kind: RerunKind
    ) -> Generator[Event, None, list[int]]:
        """Computes closed hours whole, one after the other; returns those that failed.

        An hour that fails holds up no other, and one that live batches keep on changing is left
        to the next run.
        """
        failed: list[int] = []
        for number, hour in enumerate(hours, 1):
            about = f"line '{self.names.line}', hour {partition_key(hour)}"
            try:
                report = yield from self.compute_hour(context, hour, kind=kind)
            except CommitLostError as error:
                context.log.warning("%s is left to the next run: %s", about, error)
            except PlatformError:
                context.log.exception("%s can not be computed", about)
                failed.append(hour)
            else:
                context.log.info(
                    "%s, %d of %d: version %d", about, number, len(hours), report.version
                )
        self._publish(context)
        yield from self.deliver(context, RERUN_DRAIN_S)
        return failed

    def _publish(self, context: OpExecutionContext) -> None:
        """Tells the buffer which raw records are needed no longer; the next run would, too."""
        try:
            publish(self.installation.settings.home, self.engine, [self.names.line])
        except PlatformError as error:
            context.log.warning("the buffer can not be told what was consumed: %s", error)

    def catch_up(self, context: OpExecutionContext) -> Iterator[Event]:
        """Hands long backlogs over at full speed, while live runs leave them alone.

        A database that is not behind comes first and briefly: no live run of an idle line feeds it
        meanwhile.
        """
        line, deliveries = self.names.line, self.installation.deliveries
        behind = [sink for sink, delivery in deliveries.items() if delivery.behind(line)]
        for sink in (name for name in deliveries if name not in behind):
            yield from self.feed(context, sink, LIVE_DRAIN_S)
        for sink in behind:
            share_s = CATCH_UP_S / len(behind)
            report = yield from self.feed(context, sink, share_s, wait_s=_WAIT_S)
            context.log.info(
                "line '%s', %s: %d points of %d entries in %.1f s (%d points/s), %d entries left",
                line,
                sink,
                report.points,
                report.entries,
                report.seconds,
                report.points / max(report.seconds, 1e-3),
                report.remaining,
            )

    def deliver(self, context: Context, deadline_s: float) -> Iterator[Event]:
        """Feeds each database for a while; one that is away costs the others nothing."""
        for sink in self.installation.sinks:
            yield from self.feed(context, sink, deadline_s)

    def feed(
        self,
        context: Context,
        sink: str,
        deadline_s: float,
        *,
        asked: bool = False,
        wait_s: float = 0.0,
    ) -> "Generator[Event, None, DrainReport]":
        """Feeds a database for a while; its failure is told and does not fail the run.

        Args:
            context: of the run.
            sink: name of the database.
            deadline_s: after it nothing more is begun.
            asked: True where the asset itself was to be materialized, changed or not.
            wait_s: how long to wait for another run that feeds it.
        """
        delivery = self.installation.deliveries[sink]
        report = delivery.drain(self.names.line, deadline_s, wait_s=wait_s)
        if report.error is not None:
            context.log.warning("%s is behind by %d: %s", sink, report.remaining, report.error)
        yield from self.reporter.delivery(sink, report, asked=asked)
        return report

    def _lag(self) -> checks.Lag:
        limit_s = self.installation.plant.batches.lag_bound_s
        now_ms = self.installation.clock()
        return checks.lag(self.engine, self.names.line, now_ms=now_ms, limit_s=limit_s)

    def _shown(self, log: DagsterLogManager, hour: int) -> bool:
        """False, and said so, where the hour is in the tables but no partition of Dagster."""
        if self.reporter.knows(hour):
            return True
        log.warning(
            "line '%s': hour %s is computed, but is no partition of Dagster and not shown",
            self.names.line,
            partition_key(hour),
        )
        return False
