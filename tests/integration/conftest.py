"""A Dagster that tests of a module share, and its storage on either database."""

import pytest

from iiot_platform.config.settings import DATABASE_URL
from tests.servers.dagster import Dagster
from tests.servers.postgres import PostgresServer


@pytest.fixture
def dagster(servers: Dagster) -> Dagster:
    """The `servers` of a module, running, whatever the test before has ended."""
    servers.ensure()
    return servers


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What Dagster's storage is kept in; a database of its own for every test."""
    for name in (DATABASE_URL, f"{DATABASE_URL}_FILE"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        monkeypatch.setenv(DATABASE_URL, server.database().get_secret_value())
    return str(request.param)
