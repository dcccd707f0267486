"""Fixtures for tests of the engine: a home each, and a ledger in a file or on a server.

A `conftest.py` imports what its folder needs; `ledger_database` takes its parameter from there.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger as ledgers
from iiot_platform.engine.ledger_database import SCHEMA, PostgresLedger
from tests.servers.postgres import PostgresServer

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
ON_BOTH = os.environ.get("IIOT_TEST_LEDGER") == "both"
"""True where all is asked for: every test of the engine on either database."""


@pytest.fixture(autouse=True)
def ledger_database(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """What ledgers are kept in: on a server in the place of each file a database of its own."""
    name = str(getattr(request, "param", SQLITE))
    if name == SQLITE:
        yield name
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    made: dict[Path, SecretStr] = {}
    opened: list[PostgresLedger] = []
    with server.databases(SCHEMA) as another:

        def instead_of(path: Path) -> PostgresLedger:
            if path not in made:
                made[path] = another()
            opened.append(PostgresLedger(made[path]))
            return opened[-1]

        monkeypatch.setattr(ledgers, "SqliteLedger", instead_of)
        monkeypatch.setattr(ledgers.Ledger, "is_at", staticmethod(lambda home: home.ledger in made))
        yield name
        for ledger in opened:
            ledger.engine.dispose()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home of its own for every test."""
    return Home(tmp_path / "var")


@pytest.fixture(autouse=True, scope="module")
def no_wait_for_the_disk() -> Iterator[None]:
    """What a power cut would leave no test here can see, and the waits are minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
