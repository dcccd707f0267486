import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = ("requirements-build.lock", "requirements.lock", "requirements-dev.lock")


def pinned(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"^([a-z0-9-]+)(?:\[.*?\])?==([^ ;\\]+)", text, flags=re.MULTILINE)
    return dict(found)


def asked(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", one)[0].lower() for one in requirements}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_names_no_server(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")

    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def test_everything_that_the_project_asks_for_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    runtime = asked(project["project"]["dependencies"])

    assert runtime <= pinned("requirements.lock").keys()
    assert runtime | asked(groups["dev"]) <= pinned("requirements-dev.lock").keys()
    assert asked(groups["build"]) <= pinned("requirements-build.lock").keys()


def test_tests_run_with_the_versions_that_are_shipped() -> None:
    development = pinned("requirements-dev.lock")

    assert {name: development.get(name) for name in pinned("requirements.lock")} == pinned(
        "requirements.lock"
    )
