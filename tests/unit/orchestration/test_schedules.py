from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq
import pytest
from dagster import (
    AssetCheckSeverity,
    DagsterRunStatus,
    DefaultScheduleStatus,
    ExecuteInProcessResult,
    RunRequest,
    ScheduleEvaluationContext,
    build_schedule_context,
)
from dagster._core.test_utils import create_run_for_test

from iiot_platform.config.plant import BatchSettings
from iiot_platform.core.clock import MS_PER_HOUR, hour_start_ms, partition_key
from iiot_platform.core.errors import StorageError
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.errors import CommitLostError
from iiot_platform.orchestration.naming import ASSET_TABLES, KIND_TAG, LINE_TAG
from tests.servers.capture_log import write_segments
from tests.servers.lines import signal_records
from tests.servers.site import LINES, Site

AT = datetime(2026, 11, 22, 9, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def in_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context knows its instance by a reference alone, which one in memory does not have."""
    instance = property(lambda _: site.instance)
    monkeypatch.setattr(ScheduleEvaluationContext, "instance", instance)


def evaluate(site: Site, schedule: str = "settle") -> tuple[list[RunRequest], str]:
    repository = site.definitions.get_repository_def()
    context = build_schedule_context(repository_def=repository, scheduled_execution_time=AT)
    found = repository.get_schedule_def(schedule).evaluate_tick(context)
    return list(found.run_requests or ()), found.skip_message or ""


def fill(site: Site, line: str = "press_1", *, hours: int = 2) -> None:
    """Readings of the last hours, the open one included, taken by live batches."""
    for back in range(hours, -1, -1):
        site.write(line, back_hours=back)
    engine = site.engine()
    while engine.run_batch(line, run_id="live", row_cap=50):
        pass
    engine.close()


def run(site: Site, job: str = "settle", **tags: str) -> ExecuteInProcessResult:
    return site.definitions.resolve_job_def(job).execute_in_process(
        instance=site.instance, tags=tags, raise_on_error=False
    )


def parity(result: ExecuteInProcessResult) -> list[tuple[str | None, bool, AssetCheckSeverity]]:
    return [
        (event.partition, event.passed, event.severity)
        for event in result.get_asset_check_evaluations()
        if event.check_name == "live_equals_rerun"
    ]


def differences(result: ExecuteInProcessResult) -> list[dict[str, Any]]:
    (event,) = [
        event
        for event in result.get_asset_check_evaluations()
        if event.check_name == "live_equals_rerun"
    ]
    return [record.data for record in event.metadata["differences"].records]


def test_schedules_run_by_default_in_the_plants_time(site: Site) -> None:
    site.plant = site.plant.model_copy(update={"timezone": "Europe/Rome"})
    repository = site.definitions.get_repository_def()
    nightly = repository.get_schedule_def("nightly_rerun")
    assert nightly.execution_timezone == "Europe/Rome"
    assert nightly.cron_schedule == "0 3 * * *"
    for name in ("settle", "nightly_rerun"):
        found = repository.get_schedule_def(name)
        assert found.default_status == DefaultScheduleStatus.RUNNING


def test_nothing_to_settle_says_what_was_seen(site: Site) -> None:
    fill(site, hours=0)
    requests, skipped = evaluate(site)
    assert requests == []
    assert skipped == "; ".join(f"{line}: 0 closed hours to compute" for line in LINES)


def test_each_line_with_closed_hours_gets_one_run(site: Site) -> None:
    for line in LINES:
        fill(site, line)
    requests, _ = evaluate(site)
    assert [request.tags[LINE_TAG] for request in requests] == list(LINES)
    assert [request.run_key for request in requests] == [
        f"settle:{line}:2026-11-22T09:05" for line in LINES
    ]


def test_a_line_that_is_being_settled_is_left_alone(site: Site) -> None:
    fill(site)
    tags = {LINE_TAG: "press_1", KIND_TAG: "settle"}
    going = create_run_for_test(site.instance, tags=tags, status=DagsterRunStatus.STARTED)
    requests, skipped = evaluate(site)
    assert requests == []
    assert f"press_1: run {going.run_id[:8]} is under way" in skipped


def test_live_batches_that_are_behind_come_first(site: Site) -> None:
    site.plant = site.plant.model_copy(update={"batches": BatchSettings(row_cap=99)})
    fill(site)
    site.write("press_1")
    requests, skipped = evaluate(site)
    assert requests == []
    assert "100 records wait for live batches" in skipped


def test_closed_hours_are_settled_and_the_check_passes(site: Site) -> None:
    fill(site)
    fill(site, LINES[1])
    result = run(site, **{LINE_TAG: "press_1"})
    assert result.success
    hours = [partition_key(site.hour - back) for back in (2, 1)]
    assert [(hour, passed) for hour, passed, _ in parity(result)] == [
        (hour, True) for hour in hours
    ]
    materialized = result.get_asset_materialization_events()
    assert [event.partition for event in materialized] == [
        hour for hour in hours for _ in ASSET_TABLES
    ]
    figures = {
        name: value.value for name, value in materialized[0].materialization.metadata.items()
    }
    assert figures["state"] == "settled"
    assert figures["complete"] is True
    assert figures["outdated"] is False
    assert (figures["offsets"], figures["segments"]) == ("[0, 100)", 2)
    assert {"segments_hash", "checkpoint_in", "checkpoint_out", "code_version"} <= set(figures)
    assert len(evaluate(site)[0]) == 1  # the other line is still to be settled
    assert [len(parity(run(site))), evaluate(site)[0]] == [2, []]


def test_a_late_row_is_a_warning_that_names_the_series(site: Site) -> None:
    fill(site, hours=1)
    run(site)
    # the series has gone on to the open hour, and the row comes half an hour after its own
    late = signal_records("press_1", [hour_start_ms(site.hour) - 500])[0]
    write_segments(site.settings.home, "press_1", [late._replace(received_ts=site.now_ms * 1_000)])
    engine = site.engine()
    engine.run_batch("press_1", run_id="late")
    assert engine.dirty_hours("press_1") == [site.hour - 1]
    result = run(site, "rerun_press_1")
    assert parity(result) == [
        (partition_key(site.hour - 1), False, AssetCheckSeverity.WARN),
    ]
    found = differences(result)
    assert {"table": "signals", "series": "signal/press/t/", "reason": "late"} in found
    assert {row["reason"] for row in found} == {"late"}


def test_a_defect_is_an_error(site: Site) -> None:
    fill(site, hours=1)
    run(site)
    engine, hour = site.engine(), site.hour - 1
    path = engine.store.path(engine.ledger.files("press_1", "signals", hour)[0].path)
    rows = pq.read_table(path)
    pq.write_table(rows.slice(1), path)
    result = run(site, "nightly_rerun")
    assert parity(result) == [(partition_key(hour), False, AssetCheckSeverity.ERROR)]
    assert differences(result) == [
        {"table": "signals", "series": "signal/press/t/", "reason": "defect"}
    ]
    assert [passed for _, passed, _ in parity(run(site, "nightly_rerun"))] == [True]


def test_every_night_the_newest_closed_hours_are_computed_again(site: Site) -> None:
    site.plant = site.plant.model_copy(update={"batches": BatchSettings(nightly_hours=2)})
    fill(site, hours=3)
    run(site)
    assert [request.run_key for request in evaluate(site, "nightly_rerun")[0]] == [
        "nightly_rerun:press_1:2026-11-22T09:05"
    ]
    assert [hour for hour, _, _ in parity(run(site, "nightly_rerun"))] == [
        partition_key(site.hour - back) for back in (2, 1)
    ]


def test_no_night_where_the_plant_file_says_so(site: Site) -> None:
    site.plant = site.plant.model_copy(update={"batches": BatchSettings(nightly_hours=0)})
    fill(site)
    assert evaluate(site, "nightly_rerun")[0] == []


@pytest.mark.parametrize(
    ("error", "succeeds"), [(StorageError, [False]), (CommitLostError, [True])]
)
def test_an_hour_that_fails_holds_up_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: type[StorageError], succeeds: list[bool]
) -> None:
    fill(site)
    first, real = site.hour - 2, Engine.rerun

    def recompute(engine: Engine, line: str, hour: int, **options: Any) -> object:
        if hour != first:
            return real(engine, line, hour, **options)
        raise (
            CommitLostError(line, "the version", 1, 2)
            if error is CommitLostError
            else StorageError("the segment is gone")
        )

    monkeypatch.setattr(Engine, "rerun", recompute)
    result = run(site)
    assert [result.success] == succeeds
    assert [hour for hour, _, _ in parity(result)] == [partition_key(site.hour - 1)]
    assert site.engine().unsettled_hours("press_1") == [first]


def test_an_hour_closes_when_its_grace_is_over(site: Site) -> None:
    fill(site, hours=0)
    site.now_ms = hour_start_ms(site.hour + 1) + 299_000
    assert evaluate(site)[0] == []
    site.now_ms += MS_PER_HOUR
    assert len(evaluate(site)[0]) == 1
