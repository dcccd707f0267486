"""An installation for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance

from iiot_platform.config.plant import Plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import MS_PER_HOUR, now_ms
from iiot_platform.core.paths import Home
from iiot_platform.orchestration.naming import line_names
from tests.servers.site import LINES, Site


@pytest.fixture(autouse=True, scope="session")
def _no_migrations() -> Iterator[None]:
    """Nobody migrates storage in memory, and to note its revision takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("event_log", "runs"):
            module = f"dagster._core.storage.{name}.in_memory"
            patch.setattr(f"{module}.stamp_alembic_rev", lambda *_: None)
        yield


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    plant = Plant.model_validate({"lines": list(LINES)})
    settings = Settings(home=Home(tmp_path / "var"), plant_path=tmp_path / "plant.yaml")
    # in the middle of an hour, so that a few seconds never cross into the next; in the past,
    # since Dagster stamps its runs with the real time
    now = now_ms() // MS_PER_HOUR * MS_PER_HOUR - MS_PER_HOUR // 2
    with DagsterInstance.ephemeral() as instance:
        yield Site(settings, plant, instance, now, names=list(line_names(plant.line_names)))
