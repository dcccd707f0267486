"""Files that nobody needs any more go, and the schedule that says so is on."""

import pytest
from dagster import DefaultScheduleStatus

from iiot_platform.orchestration import tidying
from tests.servers.site import Site


def test_replaced_files_go_once_the_grace_is_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("press_1", rows=400)
    engine = site.engine()
    while engine.run_batch("press_1", run_id="live", row_cap=20):
        pass
    tables = site.settings.home.tables
    before = set(tables.rglob("*.parquet"))
    job = site.definitions.get_repository_def().get_job("tidy")
    assert job.execute_in_process(instance=site.instance).success
    assert set(tables.rglob("*.parquet")) == before

    monkeypatch.setattr(tidying, "GRACE_S", -1.0)
    assert job.execute_in_process(instance=site.instance).success
    left = set(tables.rglob("*.parquet"))
    assert left < before
    hour = engine.ledger.hours("press_1")[-1]
    current = {
        tables / file.path
        for files in engine.ledger.hour_files("press_1", hour).values()
        for file in files
    }
    assert current <= left
    engine.close()


def test_it_runs_by_itself(site: Site) -> None:
    schedule = site.definitions.get_repository_def().get_schedule_def("tidy")
    assert schedule.default_status == DefaultScheduleStatus.RUNNING
