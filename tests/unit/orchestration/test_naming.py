import pytest
from dagster import AssetKey
from dagster._core.definitions.utils import DISALLOWED_NAMES, is_valid_name

from iiot_platform.core.schema import TABLES
from iiot_platform.orchestration.naming import (
    ASSET_TABLES,
    NameClashError,
    dagster_name,
    line_names,
)

ODD = ("a b", "a-b", "a.b", "Línea", "线", "-", "x" * 200, "class", "default", "1%", '"quoted"')


@pytest.mark.parametrize("line", ["line1", "L_2", "7", "X"])
def test_a_valid_name_stays(line: str) -> None:
    assert dagster_name(line) == line


@pytest.mark.parametrize("line", [*ODD, *sorted(DISALLOWED_NAMES)])
def test_an_odd_name_becomes_valid(line: str) -> None:
    safe = dagster_name(line)
    assert is_valid_name(safe)
    assert safe != line
    assert len(safe) <= 80


def test_names_that_look_alike_stay_apart() -> None:
    alike = ["a b", "a-b", "a_b", "a.b", "A b", "a  b"]
    assert len({dagster_name(line) for line in alike}) == len(alike)


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
