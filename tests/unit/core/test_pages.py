import pytest
from dagster._core.definitions.utils import DISALLOWED_NAMES, is_valid_name

from iiot_platform.core.clock import hour_from_key
from iiot_platform.core.pages import dagster_name, partition_page, run_page
from iiot_platform.orchestration.naming import line_names
from iiot_platform.orchestration.partitions import hourly

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


def test_a_page_of_a_line_is_that_of_its_asset() -> None:
    (names,) = line_names(["Línea 2 (Nord)"])
    page = partition_page("", names.line, "signals", 498_705)
    assert page.startswith(f"/assets/{'/'.join(names.table('signals').path)}?")
