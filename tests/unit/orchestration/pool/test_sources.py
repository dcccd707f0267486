"""What makes workers out of date."""

import os
from pathlib import Path

import pytest

from iiot_platform.config.active_plant import active_path
from iiot_platform.config.settings import Settings
from iiot_platform.core.paths import Home
from iiot_platform.orchestration.pool.sources import PACKAGE, Sources, code, everything


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code" / "inner").mkdir(parents=True)
    (tmp_path / "code" / "inner" / "module.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "plant.yaml").write_text("lines: [a]\n", encoding="utf-8")
    return tmp_path


def build(folder: Path) -> str:
    return Sources((folder / "code", folder / "plant.yaml", folder / "missing")).build()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("code/inner/module.py", "x = 2\n"),
        ("code/inner/new.py", ""),
        ("plant.yaml", "lines: [b]\n"),
        ("missing", "here"),
    ],
)
def test_other_content_is_another_build(folder: Path, name: str, text: str) -> None:
    sources = Sources((folder / "code", folder / "plant.yaml", folder / "missing"))
    before = sources.build()
    (folder / name).write_text(text, encoding="utf-8")
    os.utime(folder / name, ns=(1, 1))
    assert sources.build() != before
    assert build(folder) == sources.build()


def test_only_content_counts(folder: Path) -> None:
    before = build(folder)
    os.utime(folder / "plant.yaml")
    (folder / "code" / "notes.txt").write_text("no code", encoding="utf-8")
    (folder / "code" / "__pycache__").mkdir()
    (folder / "code" / "__pycache__" / "old.py").write_text("", encoding="utf-8")
    assert build(folder) == before


def test_the_plant_belongs_to_everything_and_not_to_the_code(folder: Path) -> None:
    assert PACKAGE.name == "iiot_platform"
    assert code().build() == code().build()
    settings = Settings(home=Home(folder / "var"), plant_path=folder / "plant.yaml")
    sources = everything(settings)
    before = sources.build()
    assert code().build() != before
    settings.plant_path.write_text("lines: [b]\n", encoding="utf-8")
    edited = sources.build()
    assert edited != before  # nothing is in force yet
    active_path(settings.home).parent.mkdir(parents=True)
    active_path(settings.home).write_text("lines: [b]\n", encoding="utf-8")
    in_force = sources.build()
    settings.plant_path.write_text("lines: [c]\n", encoding="utf-8")
    assert sources.build() == in_force  # an edit that is not in force
