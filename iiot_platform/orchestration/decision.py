"""What a line needs now: asked by the sensor, and between its looks by the pacemaker."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from dagster import DagsterInstance, DagsterRunStatus, RunRequest, RunsFilter

from iiot_platform.core.clock import MS_PER_S, partition_key
from iiot_platform.engine.lease import claim
from iiot_platform.orchestration.attempts import Memory
from iiot_platform.orchestration.installation import Installation
from iiot_platform.orchestration.naming import (
    ATTEMPT_TAG,
    CATCH_UP,
    HI_TAG,
    HOUR_TAG,
    KIND_TAG,
    LINE_TAG,
    LIVE,
    LO_TAG,
    RERUN,
    SENSOR,
    LineNames,
)

_LAUNCH_S: Final = 60
"""How long a run may be created and not launched before it counts as lost."""

_LOOK_MS: Final = 5_000
"""How often the daemon looks: a batch is due at the look that is nearest to its time."""

SENSOR_CLAIM_S: Final = 2.0
"""About what it takes to create a run."""
PACEMAKER_CLAIM_S: Final = 6.0
"""Longer than the sensor's looks are apart: a line stays with the pacemaker that is at it."""

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
    """One look at the lines, by the sensor or by the pacemaker.

    Attributes:
        installation: what there is to do.
        active: runs that are under way.
        memory: what earlier looks asked for.
        now_ms: the current time.
        by: who asks; a line's batch is for some seconds left to who has started the one before.
        claim_s: for how many.
    """

    installation: Installation
    active: ActiveRuns
    memory: Memory
    now_ms: int
    by: str = SENSOR
    claim_s: float = SENSOR_CLAIM_S

    def decide(self, names: LineNames) -> tuple[list[RunRequest], str]:
        """The runs that a line needs now, and what was seen.

        A dirty hour is computed beside the live batches, but only while these keep up: what is
        waiting fits into the batch that is next. A line that always has something new would
        never have it computed otherwise.

        Raises:
            PlatformError: the log or the ledger can not be read.
        """
        engine, line = self.installation.engine, names.line
        lo, head = engine.ledger.watermark(line), engine.log.head(line)
        live, seen = self._live(names, lo, head, self._pace_ms())
        rerun = None
        if head - lo <= self.installation.plant.batches.row_cap:
            rerun, about_dirty = self._rerun(names)
            seen = f"{seen}, {about_dirty}" if about_dirty else seen
        return [request for request in (live, rerun) if request is not None], seen

    def catch_up(self, names: LineNames) -> RunRequest | None:
        """The run that a line's databases need where one is far behind.

        Live runs hand over what is little; a long backlog would hold up every one of them.

        Raises:
            PlatformError: the ledger can not be read.
        """
        deliveries = self.installation.deliveries.values()
        if (names.line, CATCH_UP) in self.active or not any(
            delivery.behind(names.line) for delivery in deliveries
        ):
            return None
        # the database's own back-off says when; the time makes the key a new one
        key = f"{names.line}:{CATCH_UP}:{self.now_ms}"
        return RunRequest(job_name=names.catch_up_job, run_key=key)

    def first_attempt(self, names: LineNames) -> RunRequest | None:
        """The batch that a line needs now and has not been asked for, whatever the line's pace.

        Raises:
            PlatformError: the log or the ledger can not be read.
        """
        engine = self.installation.engine
        lo, head = engine.ledger.watermark(names.line), engine.log.head(names.line)
        last = self.memory.asked.get(f"live:{names.line}")
        if head <= lo or (last is not None and last.state == lo):
            return None
        request, _ = self._live(names, lo, head, 0)
        return request

    def _live(
        self, names: LineNames, lo: int, head: int, pace_ms: int
    ) -> tuple[RunRequest | None, str]:
        seen = f"{names.line}: offset {lo} of {head}"
        run = self.active.get((names.line, LIVE))
        if run is not None:
            return None, f"{seen}, run {run.run_id[:8]} since {self._age_s(run):.0f} s"
        if head > lo:
            row_cap = self.installation.plant.batches.row_cap
            if head - lo < row_cap and self._too_soon(names, lo, pace_ms):
                return None, f"{seen}, a batch every {pace_ms / MS_PER_S:g} s"
            hi = self.installation.engine.log.batch_end(names.line, lo, row_cap)
            return self._batch(names, lo, hi, seen)
        if self._falls_to_live(names.line):
            # the database's own back-off says when; the time makes the key a new one
            key = f"{names.line}:{lo}-{lo}:{self.now_ms}"
            tags = {LO_TAG: str(lo), HI_TAG: str(lo)}
            request = RunRequest(job_name=names.live_job, run_key=key, tags=tags)
            return request, f"{seen}, the database is behind"
        return None, f"{seen}, nothing new"

    def _falls_to_live(self, line: str) -> bool:
        """True where a database waits for something, and no run of its own sees to it."""
        return (line, CATCH_UP) not in self.active and any(
            delivery.due(line) and not delivery.behind(line)
            for delivery in self.installation.deliveries.values()
        )

    def _pace_ms(self) -> int:
        return int(self.installation.plant.batches.interval_s * MS_PER_S)

    def _too_soon(self, names: LineNames, lo: int, pace_ms: int) -> bool:
        """True where the line's batch before this one was asked for less than its pace ago."""
        last = self.memory.asked.get(f"live:{names.line}")
        if last is None or last.state == lo:
            return False
        return last.at_ms + pace_ms - self.now_ms > _LOOK_MS // 2

    def _batch(
        self, names: LineNames, lo: int, hi: int, seen: str
    ) -> tuple[RunRequest | None, str]:
        work = f"live:{names.line}"
        wait_ms = self.memory.wait_ms(work, lo, self.now_ms)
        if wait_ms:
            return None, f"{seen}, next attempt in {wait_ms / MS_PER_S:.0f} s"
        if not self._claimed(names.line):
            return None, f"{seen}, left to who has started the batch before"
        attempt = self.memory.ask(work, lo, self.now_ms)
        return RunRequest(
            job_name=names.live_job,
            # a key that has run, whatever became of it, is never run again
            run_key=f"{names.line}:{lo}-{hi}:{attempt}",
            tags={LO_TAG: str(lo), HI_TAG: str(hi), ATTEMPT_TAG: str(attempt)},
        ), f"{seen}, attempt {attempt}"

    def _claimed(self, line: str) -> bool:
        """True where nobody else is about to start a batch of the line.

        A run is created some time after it was decided on, and until then the other can not
        see it.
        """
        if self.installation.plant.batches.live_interval_s is None:
            return True  # the sensor is alone
        ledger, name = self.installation.engine.ledger, f"launch:{line}"
        return claim(ledger, name, self.by, now=self.now_ms, seconds=self.claim_s)

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

    def _age_s(self, run: ActiveRun) -> float:
        return max(0.0, self.now_ms / MS_PER_S - run.since_s)
