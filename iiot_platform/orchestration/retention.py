"""The job that deletes what runs have left in Dagster's own storage."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    JobDefinition,
    OpExecutionContext,
    RunsFilter,
    in_process_executor,
    job,
    op,
)

from iiot_platform.config.plant import BatchSettings
from iiot_platform.core.clock import MS_PER_S, partition_key
from iiot_platform.orchestration.events import Event
from iiot_platform.orchestration.installation import Installation
from iiot_platform.orchestration.naming import KIND_TAG, LIVE, PRUNE, LineNames
from iiot_platform.orchestration.pruning import Partitions, Pruned, Pruning
from iiot_platform.orchestration.space import reclaim, space

_ENDED_WELL: Final = [DagsterRunStatus.SUCCESS, DagsterRunStatus.CANCELED]
_FAILED: Final = [DagsterRunStatus.FAILURE]


def prune(
    instance: DagsterInstance,
    batches: BatchSettings,
    *,
    now: datetime,
    unsettled: Partitions = (),
) -> Pruned:
    """Deletes runs whose time is over, and observations as old as live runs.

    Args:
        instance: what is pruned.
        batches: say how long what is kept.
        now: the current time.
        unsettled: partitions that live runs still work on.

    Raises:
        ForeignStorageError: the instance is on no SQL database.
    """
    live = now - timedelta(seconds=batches.keep_live_runs_s)
    failed = now - timedelta(seconds=batches.keep_failed_runs_s)
    others = now - timedelta(seconds=batches.keep_runs_s)
    pruning = Pruning(instance, unsettled=unsettled)
    tags = {KIND_TAG: LIVE}
    pruning.runs(RunsFilter(statuses=_ENDED_WELL, tags=tags, updated_before=live))
    pruning.runs(RunsFilter(statuses=_FAILED, updated_before=failed))
    pruning.runs(RunsFilter(statuses=_ENDED_WELL, updated_before=others))
    pruning.observations(live)
    return pruning.pruned


def unsettled_partitions(installation: Installation, lines: Sequence[LineNames]) -> Partitions:
    """The hours of all lines that are open, not settled yet or dirty."""
    engine = installation.engine
    found: set[tuple[str, str]] = set()
    for names in lines:
        open_hours = [h for h in engine.ledger.hours(names.line) if engine.is_open(h)]
        due = [*engine.unsettled_hours(names.line), *engine.dirty_hours(names.line)]
        found |= {(names.prefix, partition_key(hour)) for hour in (*open_hours, *due)}
    return found


def prune_job(installation: Installation, lines: Sequence[LineNames]) -> JobDefinition:
    """Deletes old runs with all their traces; the ledger keeps what they did."""

    @op(name=f"{PRUNE}_runs", out={}, description="Deletes old runs, events and run logs.")
    def delete(context: OpExecutionContext) -> Iterator[Event]:
        instance = context.instance
        before = space(instance)
        pruned = prune(
            instance,
            installation.plant.batches,
            now=datetime.fromtimestamp(installation.clock() / MS_PER_S, UTC),
            unsettled=unsettled_partitions(installation, lines),
        )
        freed = space(instance).free - before.free
        returned = reclaim(instance)
        after = space(instance)
        context.log.info(
            "deleted %d runs, %d events (%d observations) and %d check executions; %d runs that"
            " were due stay, since something of theirs stands. %.1f MB were freed, %.1f MB given"
            " back: the files had %.1f MB and have %.1f MB, of which %.1f MB are in use%s",
            pruned.runs,
            pruned.events,
            pruned.observations,
            pruned.checks,
            pruned.kept,
            freed / 1e6,
            returned / 1e6,
            before.bytes / 1e6,
            after.bytes / 1e6,
            after.used / 1e6,
            "" if pruned.complete else "; the rest is left to the next run",
        )
        yield from ()  # an op without outputs is a generator

    @job(
        name=PRUNE,
        description="Deletes old runs and their events from Dagster; results and lineage stay.",
        executor_def=in_process_executor,
    )
    def prune_runs() -> None:
        delete()

    return prune_runs
