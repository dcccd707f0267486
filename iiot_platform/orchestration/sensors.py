"""The sensor that starts runs: a batch for each line with something new, a rerun where idle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from dagster import (
    AssetObservation,
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    JobDefinition,
    MetadataValue,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from iiot_platform.core.clock import MS_PER_S, partition_key
from iiot_platform.core.errors import PlatformError
from iiot_platform.orchestration.attempts import Memory
from iiot_platform.orchestration.installation import Installation
from iiot_platform.orchestration.naming import (
    ATTEMPT_TAG,
    HI_TAG,
    HOUR_TAG,
    KIND_TAG,
    LINE_TAG,
    LIVE,
    LO_TAG,
    RERUN,
    LineNames,
)

SENSOR: Final = "new_data"
OBSERVE_EVERY_MS: Final = 60_000
_LAUNCH_S: Final = 60
"""How long a run may be created and not launched before it counts as lost."""
_US_PER_S: Final = 1_000_000

_ACTIVE: Final = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


class ActiveRun(NamedTuple):
    """A run that is under way."""

    run_id: str
    since_s: float


ActiveRuns = Mapping[tuple[str, str], ActiveRun]
"""By line and kind."""


def active_runs(instance: DagsterInstance, *, now_s: float, since_s: float) -> ActiveRuns:
    """The runs of lines that are under way, in one query.

    Args:
        instance: has the runs.
        now_s: the current time.
        since_s: when this code server started. Runs that an earlier one launched may have died
            with it, and nobody would notice for long; they are not waited for. If one lives
            after all, the ledger lets only one of the two commit.
    """
    active: dict[tuple[str, str], ActiveRun] = {}
    for record in instance.get_run_records(RunsFilter(statuses=_ACTIVE)):
        run, created_s = record.dagster_run, record.create_timestamp.timestamp()
        line, kind = run.tags.get(LINE_TAG), run.tags.get(KIND_TAG)
        never_launched = (
            run.status == DagsterRunStatus.NOT_STARTED and now_s - created_s > _LAUNCH_S
        )
        if line is None or kind is None or created_s < since_s or never_launched:
            continue
        active[line, kind] = ActiveRun(run.run_id, created_s)
    return active


@dataclass
class Evaluation:
    """One tick of the sensor.

    Attributes:
        installation: what there is to do.
        active: runs that are under way.
        memory: what earlier ticks asked for.
        now_ms: the current time.
    """

    installation: Installation
    active: ActiveRuns
    memory: Memory
    now_ms: int

    def decide(self, names: LineNames) -> tuple[RunRequest | None, str]:
        """The run that a line needs now, or none, and what was seen.

        A dirty hour is computed beside the live batches, but only while these keep up: less is
        waiting than one batch takes.

        Raises:
            PlatformError: the log or the ledger can not be read.
        """
        engine, line = self.installation.engine, names.line
        lo, head = engine.ledger.watermark(line), engine.log.head(line)
        request, seen = self._live(names, lo, head)
        if request is None and head - lo <= self.installation.plant.batches.row_cap:
            rerun, about_dirty = self._rerun(names)
            return rerun, f"{seen}, {about_dirty}" if about_dirty else seen
        return request, seen

    def _live(self, names: LineNames, lo: int, head: int) -> tuple[RunRequest | None, str]:
        seen = f"{names.line}: offset {lo} of {head}"
        run = self.active.get((names.line, LIVE))
        if run is not None:
            return None, f"{seen}, run {run.run_id[:8]} since {self._age_s(run):.0f} s"
        if head > lo:
            row_cap = self.installation.plant.batches.row_cap
            hi = self.installation.engine.log.batch_end(names.line, lo, row_cap)
            return self._batch(names, lo, hi, seen)
        delivery = self.installation.delivery
        if delivery is not None and delivery.due(names.line):
            # the database's own back-off says when; the time makes the key a new one
            key = f"{names.line}:{lo}-{lo}:{self.now_ms}"
            tags = {LO_TAG: str(lo), HI_TAG: str(lo)}
            request = RunRequest(job_name=names.live_job, run_key=key, tags=tags)
            return request, f"{seen}, the database is behind"
        return None, f"{seen}, nothing new"

    def _batch(
        self, names: LineNames, lo: int, hi: int, seen: str
    ) -> tuple[RunRequest | None, str]:
        work = f"live:{names.line}"
        wait_ms = self.memory.wait_ms(work, lo, self.now_ms)
        if wait_ms:
            return None, f"{seen}, next attempt in {wait_ms / MS_PER_S:.0f} s"
        attempt = self.memory.ask(work, lo, self.now_ms)
        return RunRequest(
            job_name=names.live_job,
            # a key that has run, whatever became of it, is never run again
            run_key=f"{names.line}:{lo}-{hi}:{attempt}",
            tags={LO_TAG: str(lo), HI_TAG: str(hi), ATTEMPT_TAG: str(attempt)},
        ), f"{seen}, attempt {attempt}"

    def _rerun(self, names: LineNames) -> tuple[RunRequest | None, str]:
        engine, line = self.installation.engine, names.line
        dirty = engine.dirty_hours(line)
        self.memory.forget(f"rerun:{line}:", keep={f"rerun:{line}:{hour}" for hour in dirty})
        if not dirty:
            return None, ""
        run = self.active.get((line, RERUN))
        if run is not None:
            return None, f"{len(dirty)} dirty hours, run {run.run_id[:8]}"
        for hour in dirty:
            work, version = f"rerun:{line}:{hour}", engine.ledger.partition_version(line, hour)
            if self.memory.wait_ms(work, version, self.now_ms):
                continue  # an hour that fails does not hold up the others
            attempt, key = self.memory.ask(work, version, self.now_ms), partition_key(hour)
            return RunRequest(
                job_name=names.rerun_job,
                run_key=f"{line}:{key}@{version}:{attempt}",
                tags={HOUR_TAG: key, ATTEMPT_TAG: str(attempt)},
            ), f"dirty hour {key}, attempt {attempt}"
        return None, f"{len(dirty)} dirty hours wait for their next attempt"

    def observe(self, names: LineNames, instance: DagsterInstance) -> None:
        """Tells the UI where a line's log stands: at most once a minute, and only changes.

        Raises:
            PlatformError: the log or the ledger can not be read.
        """
        engine, line = self.installation.engine, names.line
        at_ms, before = self.memory.observed.get(line, (0, -1))
        head = engine.log.head(line)
        if head in (before, 0) or self.now_ms - at_ms < OBSERVE_EVERY_MS:
            return
        watermark = engine.ledger.watermark(line)
        newest_s = engine.log.segments(line, head - 1, head)[-1].max_received / _US_PER_S
        instance.report_runless_asset_event(
            AssetObservation(
                names.raw,
                metadata={
                    "offset": head,
                    "watermark": watermark,
                    "lag_rows": head - watermark,
                    "newest": MetadataValue.timestamp(newest_s),
                    "newest_age_s": max(0.0, self.now_ms / MS_PER_S - newest_s),
                },
            )
        )
        self.memory.observed[line] = (self.now_ms, head)

    def _age_s(self, run: ActiveRun) -> float:
        return max(0.0, self.now_ms / MS_PER_S - run.since_s)


def new_data_sensor(
    installation: Installation,
    lines: Sequence[LineNames],
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
        seen: list[str] = [broken] if broken else []
        for names in lines:
            try:
                request, about = evaluation.decide(names)
                evaluation.observe(names, context.instance)
            except PlatformError as error:
                context.log.exception("line '%s' can not be looked at", names.line)
                seen.append(f"{names.line}: {error}")
                continue
            seen.append(about)
            if request is not None:
                requests.append(request)
        return SensorResult(
            run_requests=requests,
            skip_reason=None if requests else "; ".join(seen),
            cursor=evaluation.memory.cursor,
        )

    return new_data
