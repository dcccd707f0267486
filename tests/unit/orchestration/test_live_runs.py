import json
import shlex
from dataclasses import dataclass, field
from typing import Any

import pytest
from dagster import AssetKey, DagsterEventType, ExecuteInProcessResult

from iiot_platform.cli.app import main
from iiot_platform.core.clock import MS_PER_HOUR, partition_key
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.errors import CommitLostError
from iiot_platform.engine.report import BatchReport, SettleReport
from iiot_platform.orchestration.naming import ASSET_TABLES, HOUR_TAG
from iiot_platform.sinks.drain import DrainReport
from tests.servers.site import Site


def run(site: Site, job: str = "live_press_1", **tags: str) -> ExecuteInProcessResult:
    return site.definitions.resolve_job_def(job).execute_in_process(
        instance=site.instance, tags=tags, raise_on_error=False
    )


def materialized(result: ExecuteInProcessResult) -> list[tuple[str, str | None]]:
    return [
        (event.asset_key.path[-1], event.partition)
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    ]


def figures(result: ExecuteInProcessResult, table: str) -> dict[str, object]:
    """The figures of the last materialization of a table."""
    found = [
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == AssetKey(["press_1", table])
    ]
    return {name: value.value for name, value in found[-1].metadata.items()}


def checks(result: ExecuteInProcessResult) -> list[tuple[str, str | None, bool]]:
    return [
        (event.check_name, event.partition, event.passed)
        for event in result.get_asset_check_evaluations()
    ]


def test_a_new_hour_is_told_once_for_each_table(site: Site) -> None:
    site.write("press_1", rows=100)
    result = run(site)
    hour = partition_key(site.hour)
    assert result.success
    assert materialized(result) == [(table, hour) for table in ASSET_TABLES]
    assert checks(result) == [("completeness", hour, True), ("lag_within_bound", hour, True)]
    seen = figures(result, "signal_anomalies")
    assert seen["rows"] == seen["dagster/partition_row_count"] == 100
    assert (seen["offset_lo"], seen["offset_hi"]) == (0, 100)
    assert seen["complete"] is False
    assert seen["line_anomaly_ratio"] == 0.0
    assert seen["settings_version"] == site.plant.line_settings("press_1").version
    assert figures(result, "valve_anomalies")["rows"] == 0


def test_the_page_of_a_run_has_the_command_that_explains_its_rows(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write("press_1", rows=100)
    result = run(site)
    assert "explain" not in figures(result, "readings")
    seen = figures(result, "signal_anomalies")
    (command,) = (
        text.strip() for text in str(seen["explain"]).splitlines() if text.startswith("    iiot ")
    )
    _, *arguments = shlex.split(command)
    environ = {
        "IIOT_HOME": str(site.settings.home.root),
        "IIOT_PLANT": str(site.settings.plant_path),
    }
    with pytest.raises(SystemExit) as ended:
        main((*arguments, "--json"), environ)
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert found["row"]["run_id"] == result.run_id
    assert found["run_page"].endswith(f"/runs/{result.run_id}")
    assert found["raw"][0]["offset"] == 99


def test_a_later_batch_tells_what_has_changed_and_what_stands(site: Site) -> None:
    site.write("press_1", rows=100)
    run(site)
    site.now_ms += 20_000
    site.write("press_1", rows=50)
    result = run(site)
    assert {table for table, _ in materialized(result)} < {*ASSET_TABLES}
    seen = figures(result, "signals")
    assert (seen["rows"], seen["dagster/partition_row_count"]) == (50, 150)
    assert seen["version"] == 2


def test_hours_of_one_batch_are_told_apart(site: Site) -> None:
    site.write("press_1", back_hours=1)
    site.write("press_1")
    result = run(site)
    hours = [partition_key(site.hour - 1), partition_key(site.hour)]
    assert sorted({hour for _, hour in materialized(result)}) == hours
    assert [check for check in checks(result) if check[0] == "lag_within_bound"] == [
        ("lag_within_bound", hours[1], True)
    ]


def test_nothing_is_told_where_nothing_is_new(site: Site) -> None:
    result = run(site)
    assert result.success
    assert materialized(result) == []


def test_a_batch_costs_few_events(site: Site) -> None:
    site.write("press_1")
    result = run(site)
    kinds = [event.event_type for event in result.all_events]
    assert DagsterEventType.STEP_OUTPUT not in kinds
    assert len(kinds) <= len(ASSET_TABLES) + 2 + 8


def test_nothing_is_told_of_a_batch_that_was_not_committed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("press_1")

    def lost(*_: object, **__: object) -> None:
        raise CommitLostError("press_1", "the watermark", 0, 1)

    monkeypatch.setattr(Engine, "run_batch", lost)
    result = run(site)
    assert not result.success
    assert materialized(result) == []


def test_a_lost_commit_is_begun_anew(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write("press_1")
    real, calls = Engine.run_batch, []

    def once_lost(engine: Engine, line: str, **options: Any) -> BatchReport | None:
        calls.append(line)
        if len(calls) < 3:
            raise CommitLostError(line, "the watermark", 0, 1)
        return real(engine, line, **options)

    monkeypatch.setattr(Engine, "run_batch", once_lost)
    result = run(site)
    assert result.success
    assert materialized(result)


def test_an_hour_that_is_no_partition_is_computed_and_not_told(site: Site) -> None:
    site.now_ms += 10 * MS_PER_HOUR  # ahead of the last partition
    site.write("press_1")
    result = run(site)
    assert result.success
    assert materialized(result) == []
    assert site.engine().ledger.watermark("press_1") == 100


def test_a_rerun_of_an_hour_that_is_no_partition_is_not_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = site.hour + 10
    monkeypatch.setattr(Engine, "dirty_hours", lambda _, __: [ahead])
    result = run(site, "rerun_press_1")
    assert result.success
    assert materialized(result) == []
    assert site.engine().ledger.partition_version("press_1", ahead) == 1


def test_a_backlog_lags_until_it_is_worked_off(site: Site) -> None:
    site.write("press_1", back_hours=1, rows=200)
    site.plant = site.plant.model_copy(
        update={"batches": site.plant.batches.model_copy(update={"row_cap": 100})}
    )
    assert ("lag_within_bound", partition_key(site.hour - 1), False) in checks(run(site))
    assert ("lag_within_bound", partition_key(site.hour - 1), True) in checks(run(site))


@pytest.mark.parametrize("tagged", [True, False])
def test_a_rerun_does_the_dirty_hour_with_the_settings_it_had(
    site: Site, monkeypatch: pytest.MonkeyPatch, *, tagged: bool
) -> None:
    site.write("press_1", back_hours=2)
    run(site)
    hour = site.hour - 2
    monkeypatch.setattr(Engine, "dirty_hours", lambda _, __: [hour])
    asked = []
    real = Engine.rerun

    def rerun(engine: Engine, line: str, hour: int, **options: Any) -> SettleReport:
        asked.append((line, hour, options["settings"], options["kind"]))
        return real(engine, line, hour, **options)

    monkeypatch.setattr(Engine, "rerun", rerun)
    tags = {HOUR_TAG: partition_key(hour)} if tagged else {}
    result = run(site, "rerun_press_1", **tags)
    assert asked == [("press_1", hour, "keep", "rerun")]
    assert materialized(result) == [(table, partition_key(hour)) for table in ASSET_TABLES]
    assert figures(result, "signals")["dagster/partition_row_count"] == 100


def test_a_rerun_of_an_hour_that_is_clean_by_now_does_nothing(site: Site) -> None:
    result = run(site, "rerun_press_1", **{HOUR_TAG: partition_key(site.hour)})
    assert result.success
    assert materialized(result) == []


@dataclass
class FakeDelivery:
    """A database whose reports are given."""

    reports: list[DrainReport]
    deadlines: list[float] = field(default_factory=list)
    far: bool = False

    def due(self, line: str) -> bool:
        return bool(self.reports) and line == "press_1"

    def behind(self, line: str) -> bool:
        return self.due(line) and self.far

    def drain(self, line: str, deadline_s: float, *, wait_s: float = 0.0) -> DrainReport:
        assert line == "press_1"
        assert wait_s < deadline_s
        self.deadlines.append(deadline_s)
        return self.reports.pop(0)


def test_the_database_is_told_of_when_it_has_everything(site: Site) -> None:
    delivery = FakeDelivery(
        [
            DrainReport(points=5, entries=1, remaining=2),
            DrainReport(points=9, entries=2),
            DrainReport(),
        ]
    )
    site.deliveries = {"influxdb": lambda _: delivery}
    results = [run(site) for _ in range(3)]
    assert [materialized(result) for result in results] == [[], [("influxdb", None)], []]
    assert [checks(result) for result in results] == [
        [("delivery", None, True)],
        [("delivery", None, True)],
        [],
    ]


def test_a_database_that_is_away_fails_its_check_and_not_the_batch(site: Site) -> None:
    site.deliveries = {
        "influxdb": lambda _: FakeDelivery([DrainReport(remaining=3, error="not reachable")])
    }
    site.write("press_1")
    result = run(site)
    assert result.success
    assert ("delivery", None, False) in checks(result)
    assert ("influxdb", None) not in materialized(result)
    assert ("signals", partition_key(site.hour)) in materialized(result)


def test_a_database_that_is_away_costs_the_others_nothing(site: Site) -> None:
    away = FakeDelivery([DrainReport(remaining=3, error="not reachable")])
    there = FakeDelivery([DrainReport(points=5, entries=1)])
    site.deliveries = {"influxdb": lambda _: away, "postgresql": lambda _: there}
    result = run(site)
    assert result.success
    assert materialized(result) == [("postgresql", None)]
    assert checks(result) == [("delivery", None, False), ("delivery", None, True)]


def test_databases_that_are_far_behind_share_the_time_of_a_run(site: Site) -> None:
    first, second = (FakeDelivery([DrainReport()], far=True) for _ in range(2))
    site.deliveries = {"influxdb": lambda _: first, "postgresql": lambda _: second}
    run(site, "catch_up_press_1")
    assert first.deadlines == second.deadlines == [300.0]


def test_a_database_that_is_not_far_behind_is_fed_beside_one_that_is(site: Site) -> None:
    far, near = FakeDelivery([DrainReport()], far=True), FakeDelivery([DrainReport()])
    site.deliveries = {"influxdb": lambda _: far, "postgresql": lambda _: near}
    jobs = [request.job_name for request in site.tick().run_requests or ()]
    assert jobs == ["live_press_1", "catch_up_press_1"]
    run(site, "catch_up_press_1")
    assert (far.deadlines, near.deadlines) == ([600.0], [1.0])


def test_the_sensor_feeds_a_database_that_is_behind_while_nothing_is_new(site: Site) -> None:
    site.deliveries = {"influxdb": lambda _: FakeDelivery([DrainReport()])}
    (request,) = site.tick().run_requests
    site.now_ms += 5_000
    (again,) = site.tick().run_requests
    assert request.job_name == again.job_name == "live_press_1"
    assert request.run_key != again.run_key


def test_a_long_backlog_has_a_run_of_its_own_beside_the_live_ones(site: Site) -> None:
    delivery = FakeDelivery([DrainReport(points=9, entries=2)], far=True)
    site.deliveries = {"influxdb": lambda _: delivery}
    (idle,) = site.tick().run_requests or ()
    assert idle.job_name == "catch_up_press_1"
    site.write("press_1")
    site.now_ms += 5_000
    live, behind = site.tick().run_requests or ()
    assert (live.job_name, behind.job_name) == ("live_press_1", "catch_up_press_1")
    assert behind.run_key != idle.run_key
    result = run(site, "catch_up_press_1")
    assert materialized(result) == [("influxdb", None)]
    assert delivery.deadlines[0] > 60
    site.now_ms += 5_000
    assert [r.job_name for r in site.tick().run_requests or ()] == ["live_press_1"]


def test_late_data_makes_its_hour_dirty_and_the_sensor_has_it_computed_again(site: Site) -> None:
    for back, rows in ((1, 100), (0, 100), (1, 150)):
        site.now_ms += 5_000
        site.write("press_1", back_hours=back, rows=rows)
        (request,) = site.tick().run_requests or ()
        assert run(site, request.job_name or "", **request.tags).success
    late = partition_key(site.hour - 1)
    (request,) = site.tick().run_requests or ()
    assert request.job_name == "rerun_press_1"
    assert request.tags[HOUR_TAG] == late
    result = run(site, "rerun_press_1", **request.tags)
    assert {hour for _, hour in materialized(result)} == {late}
    assert figures(result, "signals")["dagster/partition_row_count"] == 200
    while requests := site.tick().run_requests:  # what the rerun has changed in later hours
        assert run(site, requests[0].job_name or "", **requests[0].tags).success
    assert site.engine().dirty_hours("press_1") == []
