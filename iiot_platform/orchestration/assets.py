"""The assets and jobs of one line, from one factory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    JobDefinition,
    OpExecutionContext,
    in_process_executor,
    job,
    multi_asset,
    op,
)

from iiot_platform.core.clock import hour_from_key, partition_key
from iiot_platform.core.errors import AnalysisError, SinkError
from iiot_platform.orchestration import catalog
from iiot_platform.orchestration.events import Event, Reporter
from iiot_platform.orchestration.installation import Installation
from iiot_platform.orchestration.naming import (
    CATCH_UP,
    HOUR_TAG,
    KIND_TAG,
    LINE_TAG,
    MAX_RUNTIME_TAG,
    RERUN,
    LineNames,
)
from iiot_platform.orchestration.runs import RERUN_DRAIN_S, LineRuns

_RERUN_MAX_S: Final = 7_200


class NoPartitionError(AnalysisError):
    """Tables were to be materialized without an hour."""

    def __init__(self, line: str) -> None:
        super().__init__(f"line '{line}': tables are materialized by the hour; choose partitions")


class DeliveryError(SinkError):
    """The database did not take everything."""

    def __init__(self, line: str, sink: str, remaining: int, error: str | None) -> None:
        reason = error or "the time was up; materialize again to go on"
        super().__init__(f"line '{line}', {sink}: {remaining} entries are left: {reason}")


@dataclass(frozen=True)
class LineDefinitions:
    """What one line brings.

    Attributes:
        assets: the log, the tables and the databases.
        live_job: takes the next micro-batch.
        rerun_job: computes a dirty hour again.
        catch_up_job: feeds the databases; None where there is none.
        runs: the work that they do.
    """

    assets: tuple[AssetsDefinition | AssetSpec, ...]
    live_job: JobDefinition
    rerun_job: JobDefinition
    catch_up_job: JobDefinition | None
    runs: LineRuns

    @property
    def jobs(self) -> tuple[JobDefinition, ...]:
        """What the sensor starts."""
        more = () if self.catch_up_job is None else (self.catch_up_job,)
        return (self.live_job, self.rerun_job, *more)


def line_definitions(installation: Installation, reporter: Reporter) -> LineDefinitions:
    """The assets and jobs of the reporter's line."""
    runs = LineRuns(installation, reporter)
    plant, line = installation.plant, runs.names.line
    about = catalog.About(plant.line(line).owners, reporter.links)
    assets: list[AssetsDefinition | AssetSpec] = [
        catalog.raw_spec(runs.names, about, kind=plant.source_of(line).kind),
        _tables(runs, about),
    ]
    assets += [_sink(runs, about, sink) for sink in installation.sinks]
    catch_up = _catch_up_job(runs) if installation.sinks else None
    return LineDefinitions(tuple(assets), _live_job(runs), _rerun_job(runs), catch_up, runs)


def _tables(runs: LineRuns, about: catalog.About) -> AssetsDefinition:
    names = runs.names

    @multi_asset(
        name=f"tables_{names.safe}",
        specs=catalog.table_specs(names.plain, about),
        check_specs=catalog.table_checks(names.plain),
        partitions_def=runs.reporter.hours,
        backfill_policy=BackfillPolicy.single_run(),
        can_subset=True,
        op_tags={LINE_TAG: names.line},
    )
    def tables(context: AssetExecutionContext) -> Iterator[Event]:
        if not (context.has_partition_key or context.has_partition_key_range):
            raise NoPartitionError(names.line)  # Dagster itself does not refuse
        yield from runs.compute_hours(
            context,
            context.partition_keys,
            [key.path[-1] for key in context.selected_asset_keys],
            context.selected_asset_check_keys,
        )

    return _with_own_keys(tables, names)


def _sink(runs: LineRuns, about: catalog.About, sink: str) -> AssetsDefinition:
    names = runs.names

    @multi_asset(
        name=f"{sink}_{names.safe}",
        specs=[catalog.sink_spec(names.plain, about, sink).replace_attributes(skippable=True)],
        check_specs=catalog.sink_checks(names.plain, sink),
        can_subset=True,
        op_tags={LINE_TAG: names.line},
    )
    def rows(context: AssetExecutionContext) -> Iterator[Event]:
        report = yield from runs.feed(context, sink, RERUN_DRAIN_S, asked=True)
        if report.error is not None or report.remaining:
            raise DeliveryError(names.line, sink, report.remaining, report.error)

    return _with_own_keys(rows, names)


def _with_own_keys(made: AssetsDefinition, names: LineNames) -> AssetsDefinition:
    """The same under the line's keys: outputs are named after the keys that they are made with."""
    if names == names.plain:
        return made
    keys = made.keys | {dep.asset_key for spec in made.specs for dep in spec.deps}
    return made.with_attributes(
        asset_key_replacements={key: AssetKey([names.prefix, *key.path[1:]]) for key in keys}
    )


def _live_job(runs: LineRuns) -> JobDefinition:
    names = runs.names

    # no outputs: one would be pickled and told as two more events
    @op(name=f"{names.live_job}_batch", out={}, description="Takes what is sealed in the log.")
    def batch(context: OpExecutionContext) -> Iterator[Event]:
        yield from runs.take_batch(context)

    @job(
        name=names.live_job,
        description=f"The next micro-batch of line '{names.line}', and the databases after it.",
        executor_def=in_process_executor,
        tags=names.live_tags,
    )
    def live() -> None:
        batch()

    return live


def _rerun_job(runs: LineRuns) -> JobDefinition:
    names = runs.names

    @op(name=f"{names.rerun_job}_hour", out={}, description="Computes one dirty hour whole.")
    def hour(context: OpExecutionContext) -> Iterator[Event]:
        asked = context.run.tags.get(HOUR_TAG)
        dirty = runs.engine.dirty_hours(names.line)
        chosen = hour_from_key(asked) if asked else next(iter(dirty), None)
        if chosen is None or chosen not in dirty:
            context.log.info("line '%s': nothing is dirty", names.line)
            return
        context.log.info("line '%s': hour %s again", names.line, partition_key(chosen))
        yield from runs.compute_hour(context, chosen, kind="rerun")
        yield from runs.deliver(context, RERUN_DRAIN_S)

    @job(
        name=names.rerun_job,
        description=f"One hour of line '{names.line}' that late data has made out of date.",
        executor_def=in_process_executor,
        tags={LINE_TAG: names.line, KIND_TAG: RERUN, MAX_RUNTIME_TAG: str(_RERUN_MAX_S)},
    )
    def rerun() -> None:
        hour()

    return rerun


def _catch_up_job(runs: LineRuns) -> JobDefinition:
    names = runs.names

    @op(name=f"{names.catch_up_job}_backlog", out={}, description="Feeds the databases.")
    def backlog(context: OpExecutionContext) -> Iterator[Event]:
        yield from runs.catch_up(context)

    @job(
        name=names.catch_up_job,
        description=f"What a database of line '{names.line}' has missed, at full speed.",
        executor_def=in_process_executor,
        tags={LINE_TAG: names.line, KIND_TAG: CATCH_UP, MAX_RUNTIME_TAG: str(_RERUN_MAX_S)},
    )
    def catch_up() -> None:
        backlog()

    return catch_up
