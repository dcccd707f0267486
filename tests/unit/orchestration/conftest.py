"""An installation for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance

from iiot_platform.config.plant import Plant
from iiot_platform.config.settings import DATABASE_URL, Settings
from iiot_platform.core.clock import MS_PER_HOUR, now_ms
from iiot_platform.core.paths import Home
from iiot_platform.orchestration.naming import line_names
from tests.servers.postgres import PostgresServer
from tests.servers.site import LINES, Site


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What Dagster's storage is kept in; a database of its own for every test."""
    for name in (DATABASE_URL, f"{DATABASE_URL}_FILE"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        monkeypatch.setenv(DATABASE_URL, server.database().get_secret_value())
    return str(request.param)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    plant = Plant.model_validate({"lines": list(LINES)})
    settings = Settings(home=Home(tmp_path / "var"), plant_path=tmp_path / "plant.yaml")
    # in the middle of an hour, so that a few seconds never cross into the next; in the past,
    # since Dagster stamps its runs with the real time
    now = now_ms() // MS_PER_HOUR * MS_PER_HOUR - MS_PER_HOUR // 2
    with DagsterInstance.ephemeral() as instance:
        yield Site(settings, plant, instance, now, names=list(line_names(plant.line_names)))
