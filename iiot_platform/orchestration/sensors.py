"""The sensor that starts runs: a batch for each line with something new, a rerun where idle."""

from collections.abc import Iterator, Sequence
from typing import Final

from dagster import (
    AssetCheckEvaluation,
    AssetObservation,
    DefaultSensorStatus,
    JobDefinition,
    MetadataValue,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from iiot_platform.core.clock import MS_PER_S, hour_of, partition_key
from iiot_platform.core.errors import PlatformError
from iiot_platform.orchestration import checks
from iiot_platform.orchestration.attempts import Memory
from iiot_platform.orchestration.decision import Evaluation, active_runs
from iiot_platform.orchestration.events import Reporter, without_run
from iiot_platform.orchestration.installation import Installation
from iiot_platform.orchestration.naming import SENSOR, LineNames
from iiot_platform.orchestration.partitions import is_before

TELL_EVERY_MS: Final = 60_000
_US_PER_S: Final = 1_000_000


def new_data_sensor(
    installation: Installation,
    reporters: Sequence[Reporter],
    jobs: Sequence[JobDefinition],
    plant_problem: Exception | None = None,
) -> SensorDefinition:
    """The one sensor of all lines; a line that fails holds up no other.

    A `plant_problem` stands first in its description and in what it says when it skips.
    """
    broken = "" if plant_problem is None else f"the plant file is broken: {plant_problem}"
    since_s = installation.clock() / MS_PER_S

    @sensor(
        name=SENSOR,
        jobs=jobs,
        description=(
            f"{broken} " * bool(broken)
            + "Starts a batch for every line whose log has grown, and reruns of dirty hours."
        ),
        # the daemon looks every 5 s; a longer interval would skip every other look
        minimum_interval_seconds=1,
        default_status=DefaultSensorStatus.RUNNING,
    )
    def new_data(context: SensorEvaluationContext) -> SensorResult:
        now_ms = installation.clock()
        evaluation = Evaluation(
            installation,
            active_runs(context.instance, now_s=now_ms / MS_PER_S, since_s=since_s),
            Memory.from_cursor(context.cursor),
            now_ms,
        )
        requests: list[RunRequest] = []
        events: list[AssetObservation | AssetCheckEvaluation] = []
        seen: list[str] = [broken] if broken else []
        for reporter in reporters:
            line = reporter.names.line
            try:
                wanted, about = evaluation.decide(reporter.names)
                behind = evaluation.catch_up(reporter.names)
                events += told(evaluation, reporter)
                about += unseen(installation, reporter)
            except PlatformError as error:
                context.log.exception("line '%s' can not be looked at", line)
                seen.append(f"{line}: {error}")
                continue
            seen.append(about)
            requests += wanted if behind is None else [*wanted, behind]
        return SensorResult(
            run_requests=requests,
            skip_reason=None if requests else "; ".join(seen),
            cursor=evaluation.memory.cursor,
            asset_events=events,
        )

    return new_data


def told(
    evaluation: Evaluation, reporter: Reporter
) -> Iterator[AssetObservation | AssetCheckEvaluation]:
    """What the UI should know of a line beside its runs.

    Raises:
        PlatformError: the log or the ledger can not be read.
    """
    yield from _lag(evaluation, reporter)
    yield from _observation(evaluation, reporter.names)


def unseen(installation: Installation, reporter: Reporter) -> str:
    """That older hours are not shown yet, else nothing."""
    first = installation.engine.ledger.first_hour(reporter.names.line)
    if first is None or not is_before(reporter.hours, first):
        return ""
    return f", hours from {partition_key(first)} on are shown once the code location is reloaded"


def _lag(evaluation: Evaluation, reporter: Reporter) -> Iterator[AssetCheckEvaluation]:
    """That a line lags, once a minute, and that it does no more.

    Runs tell it too; but a line whose runs fail, or that has none, would tell nothing.
    """
    installation, line = evaluation.installation, reporter.names.line
    lagging, now_ms = evaluation.memory.lagging, evaluation.now_ms
    limit_s = installation.plant.batches.lag_bound_s
    found = checks.lag(installation.engine, line, now_ms=now_ms, limit_s=limit_s)
    told_ms = lagging.get(line)
    if found.passed:
        if lagging.pop(line, None) is None:
            return
    elif told_ms is not None and now_ms - told_ms < TELL_EVERY_MS:
        return
    else:
        lagging[line] = now_ms
    yield without_run(reporter.lag(found, hour_of(now_ms)))


def _observation(evaluation: Evaluation, names: LineNames) -> Iterator[AssetObservation]:
    """Where a line's log stands: at most once a minute, and only changes."""
    engine, memory = evaluation.installation.engine, evaluation.memory
    at_ms, before = memory.observed.get(names.line, (0, -1))
    head = engine.log.head(names.line)
    if head in (before, 0) or evaluation.now_ms - at_ms < TELL_EVERY_MS:
        return
    watermark = engine.ledger.watermark(names.line)
    newest_s = engine.log.segments(names.line, head - 1, head)[-1].max_received / _US_PER_S
    memory.observed[names.line] = (evaluation.now_ms, head)
    yield AssetObservation(
        names.raw,
        metadata={
            "offset": head,
            "watermark": watermark,
            "lag_rows": head - watermark,
            "newest": MetadataValue.timestamp(newest_s),
            "newest_age_s": max(0.0, evaluation.now_ms / MS_PER_S - newest_s),
        },
    )
