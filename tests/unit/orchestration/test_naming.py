import pytest
from dagster import AssetKey

from iiot_platform.core.pages import dagster_name
from iiot_platform.core.schema import TABLES
from iiot_platform.orchestration.naming import (
    ASSET_TABLES,
    NameClashError,
    line_names,
)


def test_a_clash_is_refused_with_both_names() -> None:
    with pytest.raises(NameClashError, match=r"'a b' and 'a_b_[0-9a-f]{8}'.*rename one"):
        line_names(["a b", dagster_name("a b")])


def test_keys_and_jobs_are_named_after_the_line() -> None:
    (names,) = line_names(["line1"])
    assert names.raw == AssetKey(["line1", "raw"])
    assert names.table("signals") == AssetKey(["line1", "signals"])
    assert (names.live_job, names.rerun_job) == ("live_line1", "rerun_line1")
    assert names.completeness.asset_key == names.table("readings")


def test_every_table_but_the_bookkeeping_is_an_asset() -> None:
    assert set(TABLES) - set(ASSET_TABLES) == {"activity"}
