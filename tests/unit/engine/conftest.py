"""A home of its own for every test, and no wait for the disk."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from iiot_platform.core.paths import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "var")


@pytest.fixture(autouse=True, scope="session")
def _no_wait_for_the_disk() -> Iterator[None]:
    """What a power cut would leave no test here can see, and the waits are a third of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
