from typing import Any

import pytest
from dagster import AssetCheckKey, AssetKey, ExecuteInProcessResult

from iiot_platform.core.clock import partition_key
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.report import SettleReport
from iiot_platform.orchestration.naming import ASSET_TABLES
from iiot_platform.sinks.drain import DrainReport
from tests.servers.site import Site

CHECKS = ("completeness", "lag_within_bound", "live_equals_rerun")


def backfill(site: Site, tables: list[str], first: int, last: int) -> ExecuteInProcessResult:
    keys = [AssetKey(["press_1", table]) for table in tables]
    job = site.definitions.resolve_implicit_job_def_def_for_assets(keys)
    return job.get_subset(
        asset_selection=set(keys),
        asset_check_selection={
            AssetCheckKey(key, name)
            for key in keys
            if key.path[-1] == "readings"
            for name in CHECKS
        },
    ).execute_in_process(
        instance=site.instance,
        raise_on_error=False,
        tags={
            "dagster/asset_partition_range_start": partition_key(first),
            "dagster/asset_partition_range_end": partition_key(last),
        },
    )


def told(result: ExecuteInProcessResult) -> list[tuple[str, str | None, object]]:
    return [
        (
            event.asset_key.path[-1],
            event.partition,
            event.materialization.metadata["dagster/partition_row_count"].value,
        )
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    ]


@pytest.fixture
def filled(site: Site) -> Site:
    for back in (3, 1):
        site.write("press_1", back_hours=back)
    while site.engine().run_batch("press_1", run_id="live"):
        pass
    return site


def test_each_hour_is_told_once_for_each_table_an_empty_one_too(filled: Site) -> None:
    hours = [filled.hour - 3, filled.hour - 2, filled.hour - 1]
    result = backfill(filled, list(ASSET_TABLES), hours[0], hours[-1])
    assert result.success
    seen = told(result)
    assert [(table, hour) for table, hour, _ in seen] == [
        (table, partition_key(hour)) for hour in hours for table in ASSET_TABLES
    ]
    assert [rows for table, _, rows in seen if table == "signals"] == [100, 0, 100]
    found = [(event.check_name, event.partition) for event in result.get_asset_check_evaluations()]
    assert sorted(found) == sorted((name, partition_key(hour)) for hour in hours for name in CHECKS)


def test_an_open_hour_is_not_compared(filled: Site) -> None:
    result = backfill(filled, list(ASSET_TABLES), filled.hour, filled.hour)
    assert result.success
    found = {event.check_name for event in result.get_asset_check_evaluations()}
    assert found == {"completeness", "lag_within_bound"}


def test_chosen_tables_alone_are_told(filled: Site) -> None:
    result = backfill(filled, ["signals", "states"], filled.hour - 3, filled.hour - 3)
    assert result.success
    assert {table for table, _, _ in told(result)} == {"signals", "states"}
    assert not result.get_asset_check_evaluations()


def test_hours_are_computed_in_order_under_the_current_settings(
    filled: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = Engine.rerun

    def rerun(engine: Engine, line: str, hour: int, **options: Any) -> SettleReport:
        asked.append((line, hour, options["settings"], options["kind"]))
        return real(engine, line, hour, **options)

    monkeypatch.setattr(Engine, "rerun", rerun)
    assert backfill(filled, ["signals"], filled.hour - 3, filled.hour).success
    assert asked == [
        ("press_1", hour, "current", "backfill") for hour in range(filled.hour - 3, filled.hour + 1)
    ]


def test_what_was_committed_before_a_failure_is_told(
    filled: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Engine.rerun

    def rerun(engine: Engine, line: str, hour: int, **options: Any) -> SettleReport:
        if hour == filled.hour - 1:
            raise ValueError("poison")
        return real(engine, line, hour, **options)

    monkeypatch.setattr(Engine, "rerun", rerun)
    result = backfill(filled, ["signals"], filled.hour - 3, filled.hour)
    assert not result.success
    assert [hour for _, hour, _ in told(result)] == [
        partition_key(filled.hour - 3),
        partition_key(filled.hour - 2),
    ]


def test_the_database_on_demand_fails_where_it_is_behind(site: Site) -> None:
    reports = [DrainReport(), DrainReport(remaining=3, error="not reachable")]

    class Given:
        def due(self, line: str) -> bool:
            return bool(line)

        def behind(self, line: str) -> bool:
            return not line

        def drain(self, line: str, deadline_s: float, *, wait_s: float = 0.0) -> DrainReport:
            assert line == "press_1"
            assert deadline_s > wait_s
            return reports.pop(0)

    site.deliveries = {"influxdb": lambda _: Given()}
    key = AssetKey(["press_1", "influxdb"])
    job = site.definitions.resolve_implicit_job_def_def_for_assets([key])
    results = [
        job.get_subset(asset_selection={key}).execute_in_process(
            instance=site.instance, raise_on_error=False
        )
        for _ in range(2)
    ]
    assert [result.success for result in results] == [True, False]
    assert [len(result.get_asset_materialization_events()) for result in results] == [1, 0]
    assert "not reachable" in str(results[1].all_events)
