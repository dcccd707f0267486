"""The job that prunes Dagster's storage, on runs that were really executed."""

import pytest
from dagster import DefaultScheduleStatus

from iiot_platform.core.clock import MS_PER_HOUR, partition_key
from iiot_platform.orchestration.installation import Installation
from iiot_platform.orchestration.naming import LIVE
from iiot_platform.orchestration.retention import unsettled_partitions
from tests.servers.site import Site


def runs_of(site: Site, job: str) -> set[str]:
    return {run.run_id for run in site.instance.get_runs() if run.job_name == job}


@pytest.fixture
def live(site: Site) -> list[str]:
    """Three runs of one hour."""
    repository = site.definitions.get_repository_def()
    runs = []
    for _ in range(3):
        site.write("press_1", rows=100)
        job = repository.get_job(f"{LIVE}_press_1")
        result = job.execute_in_process(instance=site.instance)
        assert result.success
        runs.append(result.run_id)
    return runs


def prune(site: Site) -> str:
    job = site.definitions.get_repository_def().get_job("prune")
    result = job.execute_in_process(instance=site.instance)
    assert result.success
    logs = site.instance.all_logs(result.run_id)
    (line,) = [entry.user_message for entry in logs if entry.user_message.startswith("deleted ")]
    return line


def test_live_runs_go_once_their_hour_has_settled(site: Site, live: list[str]) -> None:
    assert prune(site).startswith("deleted 0 runs")
    site.now_ms += 12 * MS_PER_HOUR
    # the hour is over and has not been computed whole
    assert prune(site).startswith("deleted 0 runs")
    assert runs_of(site, "live_press_1") == set(live)

    settle = site.definitions.get_repository_def().get_job("settle")
    assert settle.execute_in_process(instance=site.instance).success
    assert prune(site).startswith("deleted 3 runs")
    assert runs_of(site, "live_press_1") == set()
    assert len(runs_of(site, "settle")) == 1
    assert len(runs_of(site, "prune")) == 3


def test_open_unsettled_and_dirty_hours_are_worked_on(site: Site) -> None:
    installation = Installation(site.settings, site.plant, clock=lambda: site.now_ms)
    engine = installation.engine
    site.write("press_1", rows=100)
    engine.run_batch("press_1", run_id="live", row_cap=1_000)
    hour = site.hour
    working = {("press_1", partition_key(hour))}
    assert unsettled_partitions(installation, site.names) == working
    site.now_ms += 2 * MS_PER_HOUR
    assert unsettled_partitions(installation, site.names) == working
    engine.rerun("press_1", hour, run_id="settle", settings="keep", kind="settle")
    assert unsettled_partitions(installation, site.names) == set()
    engine.close()


def test_it_runs_by_itself(site: Site) -> None:
    schedule = site.definitions.get_repository_def().get_schedule_def("prune")
    assert schedule.default_status == DefaultScheduleStatus.RUNNING
