import pytest
from dagster._core.definitions.utils import DISALLOWED_NAMES, is_valid_name

from iiot_platform.core.clock import hour_from_key
from iiot_platform.core.pages import asset_prefix, dagster_name, partition_page, run_page
from iiot_platform.orchestration.naming import line_names
from iiot_platform.orchestration.partitions import hourly
from tests.servers.dagster import shown_key

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


def test_pages_lie_below_the_address_of_dagster() -> None:
    assert run_page("https://d/x", "5f1c9c0e-3f7e") == "https://d/x/runs/5f1c9c0e-3f7e"
    key = "2026-11-22-07:00"
    assert partition_page("http://d:3000", "line1", "signals", hour_from_key(key)) == (
        "http://d:3000/assets/line1/signals?view=partitions&partition=2026-11-22-07%3A00"
    )
    assert hourly().has_partition_key(key)


@pytest.mark.parametrize(
    "line", [*ODD, "a:b", "a&b?c=d", "x[1]*", "Linie 4 Süd", "50%25", ".", ".."]
)
def test_a_page_of_a_line_is_that_of_its_asset(line: str) -> None:
    (names,) = line_names([line])
    page = partition_page("", line, "signals", 498_705)
    assert shown_key(page) == names.table("signals").path
    assert "/../" not in page


def test_assets_are_called_as_dashboards_call_their_line() -> None:
    own = [line for line in ODD if asset_prefix(line) == line]
    assert set(ODD) - set(own) == {"1%", '"quoted"'}
    # what Dagster's pages can not decode
    assert asset_prefix("1%") == dagster_name("1%")
