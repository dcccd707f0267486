"""A home of its own for every test."""

from pathlib import Path

import pytest

from iiot_platform.core.paths import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "var")
