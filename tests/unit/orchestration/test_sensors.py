from collections.abc import Callable

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetKey,
    AssetObservation,
    DagsterRun,
    DagsterRunStatus,
    RunRequest,
    SkipReason,
)
from dagster._core.test_utils import create_run_for_test

from iiot_platform.config.plant import BatchSettings
from iiot_platform.core.clock import partition_key
from iiot_platform.core.errors import StorageError
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.ledger import Ledger
from iiot_platform.orchestration.decision import active_runs
from iiot_platform.orchestration.naming import HOUR_TAG, KIND_TAG, LINE_TAG
from tests.servers.site import Site


def reason(skip: SkipReason | str | None) -> str:
    return skip.skip_message or "" if isinstance(skip, SkipReason) else skip or ""


def requests(site: Site) -> list[RunRequest]:
    return list(site.tick().run_requests or ())


def keys(site: Site) -> list[str | None]:
    return [request.run_key for request in requests(site)]


def start(
    site: Site,
    line: str,
    kind: str = "live",
    status: DagsterRunStatus = DagsterRunStatus.STARTED,
) -> DagsterRun:
    return create_run_for_test(site.instance, tags={LINE_TAG: line, KIND_TAG: kind}, status=status)


def test_nothing_to_do_says_what_was_seen(site: Site) -> None:
    result = site.tick()
    assert not result.run_requests
    assert reason(result.skip_reason) == (
        "press_1: offset 0 of 0, nothing new; Línea 2 (Nord): offset 0 of 0, nothing new"
    )


def test_each_line_with_new_data_gets_one_batch(site: Site) -> None:
    site.write("press_1")
    (request,) = requests(site)
    assert request.job_name == "live_press_1"
    assert request.run_key == "press_1:0-100:1"
    assert request.tags == {"iiot/lo": "0", "iiot/hi": "100", "iiot/attempt": "1"}
    site.write("Línea 2 (Nord)")
    assert {r.job_name for r in requests(site)} == {site.names[1].live_job, "live_press_1"}


def test_a_line_is_left_alone_while_its_run_is_active(site: Site) -> None:
    site.write("press_1")
    site.write("Línea 2 (Nord)")
    run = start(site, "press_1")
    assert keys(site) == ["Línea 2 (Nord):0-100:1"]
    start(site, "Línea 2 (Nord)")
    assert f"press_1: offset 0 of 100, run {run.run_id[:8]}" in reason(site.tick().skip_reason)


def test_the_attempt_rises_until_the_watermark_does(site: Site) -> None:
    site.write("press_1")
    assert keys(site) == ["press_1:0-100:1"]
    site.write("press_1")
    assert keys(site) == ["press_1:0-200:2"]
    result = site.tick()
    assert not result.run_requests
    assert "press_1: offset 0 of 200, next attempt in 5 s" in reason(result.skip_reason)
    site.now_ms += 5_000
    assert keys(site) == ["press_1:0-200:3"]
    site.engine().run_batch("press_1", run_id="r")
    site.write("press_1")
    site.now_ms += 5_000
    assert keys(site) == ["press_1:200-300:1"]


def test_a_line_keeps_its_pace_while_it_keeps_up(site: Site) -> None:
    site.plant = site.plant.model_copy(
        update={"batches": BatchSettings(interval_s=60, row_cap=500)}
    )
    site.write("press_1")
    assert keys(site) == ["press_1:0-100:1"]
    site.engine().run_batch("press_1", run_id="r")
    site.write("press_1")
    site.now_ms += 55_000
    assert "press_1: offset 100 of 200, a batch every 60 s" in reason(site.tick().skip_reason)
    site.now_ms += 5_000
    assert keys(site) == ["press_1:100-200:1"]
    site.engine().run_batch("press_1", run_id="r")
    site.write("press_1", rows=500)
    assert keys(site) == ["press_1:200-700:1"]  # as much as one batch takes does not wait


def test_a_batch_ends_at_a_segment_within_the_cap(site: Site) -> None:
    site.plant = site.plant.model_copy(update={"batches": BatchSettings(row_cap=170)})
    site.write("press_1", rows=300)
    assert keys(site) == ["press_1:0-150:1"]


@pytest.mark.parametrize("kind", ["rerun", None])
def test_other_runs_of_the_line_do_not_hold_up_its_batches(site: Site, kind: str | None) -> None:
    site.write("press_1")
    tags = {LINE_TAG: "press_1"} | ({KIND_TAG: kind} if kind else {})
    create_run_for_test(site.instance, tags=tags, status=DagsterRunStatus.STARTED)
    assert keys(site) == ["press_1:0-100:1"]


def test_dead_runs_are_not_waited_for(site: Site) -> None:
    run = start(site, "press_1")
    lost = start(site, "Línea 2 (Nord)", status=DagsterRunStatus.NOT_STARTED)
    for status in (DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS, DagsterRunStatus.CANCELED):
        start(site, "other", status=status)
    record = site.instance.get_run_record_by_id(run.run_id)
    assert record is not None
    at = record.create_timestamp.timestamp()
    look: Callable[[float, float], set[str]] = lambda now_s, since_s: {  # noqa: E731 - short
        active.run_id
        for active in active_runs(site.instance, now_s=now_s, since_s=since_s).values()
    }
    assert look(at, at - 1) == {run.run_id, lost.run_id}
    assert look(at + 61, at - 1) == {run.run_id}  # created and never launched
    assert look(at, at + 1) == set()  # of a code server that is gone


def test_a_dirty_hour_is_computed_again_oldest_first(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = [site.hour - 2, site.hour - 1]
    monkeypatch.setattr(Engine, "dirty_hours", lambda _, line: hours if line == "press_1" else [])
    (request,) = requests(site)
    assert request.job_name == "rerun_press_1"
    assert request.run_key == f"press_1:{partition_key(hours[0])}@0:1"
    assert request.tags[HOUR_TAG] == partition_key(hours[0])
    run = start(site, "press_1", "rerun")
    assert f"2 dirty hours, run {run.run_id[:8]}" in reason(site.tick().skip_reason)


def test_a_dirty_hour_that_fails_does_not_hold_up_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = [site.hour - 2, site.hour - 1]
    monkeypatch.setattr(Engine, "dirty_hours", lambda _, line: hours if line == "press_1" else [])
    first, second = (f"press_1:{partition_key(hour)}@0" for hour in hours)
    assert [keys(site)[0] for _ in range(4)] == [
        f"{first}:1",
        f"{first}:2",
        f"{second}:1",
        f"{second}:2",
    ]
    assert "2 dirty hours wait" in reason(site.tick().skip_reason)
    del hours[0]
    site.now_ms += 5_000
    assert keys(site) == [f"{second}:3"]
    assert first not in (site.cursor or "")


def test_live_data_comes_before_dirty_hours(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "dirty_hours", lambda _, __: [site.hour - 2])
    site.plant = site.plant.model_copy(update={"batches": BatchSettings(row_cap=100)})
    site.write("press_1", rows=300)
    jobs = [request.job_name for request in requests(site)]
    assert jobs == ["live_press_1", site.names[1].rerun_job]
    start(site, "press_1")
    assert "rerun_press_1" not in [request.job_name for request in requests(site)]


def test_a_line_that_always_has_something_new_has_its_dirty_hours_computed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    dirty = site.hour - 2
    monkeypatch.setattr(Engine, "dirty_hours", lambda _, line: [dirty] if line == "press_1" else [])
    site.write("press_1")
    jobs = [request.job_name for request in requests(site)]
    assert jobs == ["live_press_1", "rerun_press_1"]


def test_a_line_that_can_not_be_read_holds_up_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("Línea 2 (Nord)")
    watermark = Ledger.watermark

    def broken(ledger: Ledger, line: str) -> int:
        if line == "press_1":
            raise StorageError("the disk is gone")
        return watermark(ledger, line)

    monkeypatch.setattr(Ledger, "watermark", broken)
    assert keys(site) == ["Línea 2 (Nord):0-100:1"]


def test_the_log_is_observed_once_a_minute_and_when_it_grew(site: Site) -> None:
    site.write("press_1")

    def observed() -> list[object]:
        return [
            event.metadata["offset"].value
            for event in site.tick().asset_events
            if isinstance(event, AssetObservation)
            and event.asset_key == AssetKey(["press_1", "raw"])
        ]

    assert observed() == [100]
    site.write("press_1")
    assert observed() == []
    site.now_ms += 60_000
    assert observed() == [200]
    site.now_ms += 60_000
    assert observed() == []


def test_a_line_that_lags_is_told_once_a_minute_and_when_it_does_no_more(site: Site) -> None:
    def told() -> list[tuple[str, bool]]:
        return [
            (event.check_name, event.passed)
            for event in site.tick().asset_events
            if isinstance(event, AssetCheckEvaluation)
        ]

    site.write("press_1")
    assert told() == []
    site.now_ms += 50_000
    assert told() == []
    site.now_ms += 15_000
    assert told() == [("lag_within_bound", False)]
    site.now_ms += 30_000
    assert told() == []
    site.now_ms += 30_000
    assert told() == [("lag_within_bound", False)]
    site.engine().run_batch("press_1", run_id="r")
    assert told() == [("lag_within_bound", True)]
    assert told() == []


def test_what_is_told_without_a_run_can_be_told_again(site: Site) -> None:
    site.write("press_1")
    site.now_ms += 90_000
    for _ in range(3):  # Dagster stores a check of a partition once for each run
        for event in site.tick().asset_events:
            site.instance.report_runless_asset_event(event)
        site.now_ms += 60_000
