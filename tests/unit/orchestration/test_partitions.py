"""Which hours Dagster is told of, and where they begin."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dagster import AssetKey, AssetMaterialization, DagsterInstance
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from iiot_platform.config.plant import Plant
from iiot_platform.core.clock import MS_PER_HOUR, from_ms, hour_of, now_ms, partition_key
from iiot_platform.orchestration.partitions import history_start, hourly, is_before, is_partition
from tests.servers.site import Site

AT = datetime(2026, 3, 9, 0, 20, tzinfo=UTC)


def start(site: Site, **plant: Any) -> str:
    given = Plant.model_validate({"lines": ["press_1"], **plant})
    found = history_start(site.settings.home, given, round(AT.timestamp() * 1_000))
    return f"{found:%Y-%m-%d %H:%M%z}"


def test_before_anything_was_computed_history_begins_yesterday(site: Site) -> None:
    assert start(site) == "2026-03-08 00:00+0000"
    assert not site.settings.home.ledger.exists()


def test_the_plant_file_says_where_history_begins(site: Site) -> None:
    assert start(site, history_start="2026-01-01") == "2026-01-01 00:00+0000"


@pytest.mark.parametrize("wanted", [{}, {"history_start": "2026-01-01"}])
def test_an_older_hour_that_was_computed_comes_first(site: Site, wanted: dict[str, str]) -> None:
    site.now_ms = round(datetime(2025, 12, 3, 7, 30, tzinfo=UTC).timestamp() * 1_000)
    site.write("press_1")
    site.engine().run_batch("press_1", run_id="r")
    assert start(site, **wanted) == "2025-12-03 00:00+0000"


def test_older_hours_are_told_and_later_ones_are_not() -> None:
    now = hour_of(now_ms())
    hours = hourly(from_ms((now - 5) * MS_PER_HOUR))
    assert is_partition(hours, now + 1)
    assert not is_partition(hours, now + 3)
    assert is_partition(hours, now - 9)
    assert is_before(hours, now - 9)
    assert not is_before(hours, now - 3)


def test_an_hour_that_was_told_too_early_is_counted_once_history_begins_before_it() -> None:
    """What the UI counts, with its cache: the reason why older hours are told at all."""
    this = hour_of(now_ms())
    now = from_ms(this * MS_PER_HOUR)
    key, hour = AssetKey(["press_1", "signals"]), partition_key(this - 9)

    def counted(since: datetime) -> set[str]:
        hours = hourly(since)
        status = get_and_update_asset_status_cache_value(instance, key, hours, None)
        assert status is not None
        return set(status.deserialize_materialized_partition_subsets(hours).get_partition_keys())

    with DagsterInstance.ephemeral() as instance:
        open_hour = partition_key(this)
        for told in (open_hour, hour):
            instance.report_runless_asset_event(AssetMaterialization(key, partition=told))
            assert counted(now - timedelta(hours=5)) == {open_hour}
        assert counted(now - timedelta(hours=20)) == {open_hour, hour}


def test_the_sensor_says_that_older_hours_are_not_shown_yet(site: Site) -> None:
    site.now_ms -= 100 * MS_PER_HOUR
    site.write("press_1")
    site.engine().run_batch("press_1", run_id="r")
    assert "reloaded" not in str(site.tick().skip_reason)
    site.start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=50)
    said = str(site.tick().skip_reason)
    assert "are shown once the code location is reloaded" in said
