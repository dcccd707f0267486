"""A home of its own for every test, and both databases for what depends on the ledger."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger as ledgers
from iiot_platform.engine.ledger_database import SCHEMA, PostgresLedger
from tests.servers.postgres import PostgresServer

ON_BOTH = {
    *("test_ledger", "test_lease", "test_outbox", "test_status", "test_settle", "test_garbage"),
    *("test_races", "test_late"),
}
LONG = {
    "test_a_database_that_follows_ends_with_what_the_tables_say",
    "test_a_rerun_that_a_live_batch_overtakes_loses",
    "test_a_late_row_ripples_no_further_than_the_states_differ",
}
"""Shown on PostgreSQL only where all is asked for: IIOT_TEST_LEDGER=both."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module = metafunc.module.__name__.rpartition(".")[2]
    thorough = os.environ.get("IIOT_TEST_LEDGER") == "both"
    if thorough or (module in ON_BOTH and metafunc.function.__name__ not in LONG):
        on_a_server = pytest.param("postgresql", marks=pytest.mark.postgresql)
        metafunc.parametrize("ledger_database", ["sqlite", on_a_server], indirect=True)


@pytest.fixture(autouse=True)
def ledger_database(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """What ledgers are kept in: in the place of each file a database of its own."""
    name = str(getattr(request, "param", "sqlite"))
    if name == "sqlite":
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
    return Home(tmp_path / "var")


@pytest.fixture(autouse=True, scope="module")
def _no_wait_for_the_disk() -> Iterator[None]:
    """What a power cut would leave no test here can see, and the waits are minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
