"""The schedules that compute closed hours whole: once after each has closed, and every night."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from dagster import (
    DefaultScheduleStatus,
    JobDefinition,
    OpExecutionContext,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    in_process_executor,
    job,
    op,
    schedule,
)

from iiot_platform.core.clock import MS_PER_S, partition_key
from iiot_platform.core.errors import AnalysisError, PlatformError
from iiot_platform.orchestration.decision import ActiveRuns, active_runs
from iiot_platform.orchestration.events import Event
from iiot_platform.orchestration.installation import Installation
from iiot_platform.orchestration.naming import (
    KIND_TAG,
    LINE_TAG,
    MAX_RUNTIME_TAG,
    NIGHTLY,
    SETTLE,
    LineNames,
)
from iiot_platform.orchestration.runs import LineRuns

_EVERY_FIVE_MINUTES: Final = "*/5 * * * *"
_AT_THREE: Final = "0 3 * * *"
_MAX_S: Final = 7_200

Hours = Callable[[Installation, str], Sequence[int]]
"""The hours of a line that are to be computed, oldest first."""


class NotSettledError(AnalysisError):
    """Hours could not be computed again."""

    def __init__(self, failed: Sequence[tuple[str, int]]) -> None:
        hours = ", ".join(f"{partition_key(hour)} of line '{line}'" for line, hour in failed)
        super().__init__(f"hours that could not be computed: {hours}; see the run's log for why")


def unsettled(installation: Installation, line: str) -> Sequence[int]:
    """Hours that have closed and were not computed whole since."""
    return installation.engine.unsettled_hours(line)


def newest_closed(installation: Installation, line: str) -> Sequence[int]:
    """The newest closed hours, as many as the plant file says."""
    count = installation.plant.batches.nightly_hours
    return installation.engine.closed_hours(line)[-count:] if count else []


def settle_job(lines: Sequence[LineRuns]) -> JobDefinition:
    """The job that settles what has closed."""
    return _closed_hours_job(
        SETTLE,
        "Computes the hours that have closed whole from the log and compares them with what live"
        " batches made of them.",
        lines,
        unsettled,
    )


def nightly_job(lines: Sequence[LineRuns]) -> JobDefinition:
    """The job that computes the last day once more."""
    return _closed_hours_job(
        NIGHTLY,
        "Computes the newest closed hours once more and compares them with what stands.",
        lines,
        newest_closed,
    )


def _closed_hours_job(
    name: str, description: str, lines: Sequence[LineRuns], hours: Hours
) -> JobDefinition:
    @op(name=f"{name}_hours", out={}, description=description)
    def compute(context: OpExecutionContext) -> Iterator[Event]:
        asked = context.run.tags.get(LINE_TAG)
        failed: list[tuple[str, int]] = []
        for runs in lines:
            line = runs.names.line
            if asked in (None, line):
                found = hours(runs.installation, line)
                missed = yield from runs.settle(context, found, kind="settle")
                failed += [(line, hour) for hour in missed]
        if failed:
            raise NotSettledError(failed)

    @job(
        name=name,
        description=f"{description} One line where its tag `{LINE_TAG}` is set, else every line.",
        executor_def=in_process_executor,
        tags={KIND_TAG: name, MAX_RUNTIME_TAG: str(_MAX_S)},
    )
    def closed_hours() -> None:
        compute()

    return closed_hours


def settle_schedule(
    installation: Installation, lines: Sequence[LineNames], job: JobDefinition
) -> ScheduleDefinition:
    """Looks every five minutes for hours that have closed."""
    return _schedule(installation, lines, job, unsettled, _EVERY_FIVE_MINUTES, "UTC")


def nightly_schedule(
    installation: Installation, lines: Sequence[LineNames], job: JobDefinition
) -> ScheduleDefinition:
    """Computes the last day once more, every night of the plant."""
    zone = installation.plant.timezone
    return _schedule(installation, lines, job, newest_closed, _AT_THREE, zone)


def hourly_schedule(job: JobDefinition, *, minute: int) -> ScheduleDefinition:
    """Runs a job that looks after itself once an hour."""
    return ScheduleDefinition(
        job=job,
        name=job.name,
        cron_schedule=f"{minute} * * * *",
        description=job.description,
        default_status=DefaultScheduleStatus.RUNNING,
    )


def _schedule(
    installation: Installation,
    lines: Sequence[LineNames],
    job: JobDefinition,
    hours: Hours,
    cron: str,
    timezone: str,
) -> ScheduleDefinition:
    since_s = installation.clock() / MS_PER_S

    @schedule(
        job=job,
        name=job.name,
        cron_schedule=cron,
        execution_timezone=timezone,
        description=job.description,
        default_status=DefaultScheduleStatus.RUNNING,
    )
    def evaluate(context: ScheduleEvaluationContext) -> list[RunRequest] | SkipReason:
        now_s = installation.clock() / MS_PER_S
        active = active_runs(context.instance, now_s=now_s, since_s=since_s)
        requests: list[RunRequest] = []
        seen: list[str] = []
        for names in lines:
            try:
                found, about = _due(installation, names, active, job.name, hours)
            except PlatformError as error:
                context.log.exception("line '%s' can not be looked at", names.line)
                found, about = 0, f"{names.line}: {error}"
            seen.append(about)
            if found:
                at = context.scheduled_execution_time
                key = f"{job.name}:{names.line}:{at:%Y-%m-%dT%H:%M}"
                requests.append(RunRequest(run_key=key, tags={LINE_TAG: names.line}))
        return requests or SkipReason("; ".join(seen))

    return evaluate


def _due(
    installation: Installation, names: LineNames, active: ActiveRuns, kind: str, hours: Hours
) -> tuple[int, str]:
    """How many hours of a line are to be computed now, and what was seen."""
    line = names.line
    run = active.get((line, kind))
    if run is not None:
        return 0, f"{line}: run {run.run_id[:8]} is under way"
    behind = installation.engine.log.head(line) - installation.engine.ledger.watermark(line)
    if behind > installation.plant.batches.row_cap:
        return 0, f"{line}: {behind} records wait for live batches, which come first"
    found = hours(installation, line)
    return len(found), f"{line}: {len(found)} closed hours to compute"
