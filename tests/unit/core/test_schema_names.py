"""Names of measurements and fields stand in the schema; elsewhere they are looked up in it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from iiot_platform.core import schema

ROOT = Path(schema.__file__).resolve().parents[2]
PACKAGES = ("iiot_platform", "buffer_service", "tools")
TABLES = (*schema.measured(), schema.EVENTS)
MEASUREMENTS = {table.measurement for table in TABLES}
COLUMNS = {column.name for table in TABLES for column in table.columns}


def literals(text: str) -> Iterator[str]:
    """The strings of a module that are no docstrings; the parts of f-strings too."""
    tree = ast.parse(text)
    told = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


def written_again(text: str) -> set[str]:
    """Measurements, and columns that a query's text quotes, other than those it shows."""
    found = set()
    for literal in literals(text):
        found |= MEASUREMENTS & set(re.findall(r"\w+", literal)) if '"' in literal else set()
        found |= MEASUREMENTS & {literal}
        found |= COLUMNS & set(re.findall(r'(?<!AS )"(\w+)"', literal))
    return {name for name in found if name is not None}


def modules() -> list[Path]:
    own = Path(schema.__file__)
    return [p for name in PACKAGES for p in sorted((ROOT / name).rglob("*.py")) if p != own]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_measurement_or_field_is_written_twice(package: str) -> None:
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in modules()
        if path.is_relative_to(ROOT / package)
        for name in written_again(path.read_text(encoding="utf-8"))
    }
    assert found == set()


def test_a_name_that_is_written_again_is_found() -> None:
    assert written_again('x = "GenericSensor"') == {"GenericSensor"}
    assert written_again("x = f'SELECT mean(\"lateness_mean_s\") FROM {y}'") == {"lateness_mean_s"}
    assert written_again('"""The GenericSensor."""\nname = table.column("value")') == set()
