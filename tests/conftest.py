"""What holds for all tests."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.servers.postgres import PostgresServer, running_postgres

# a machine that is busy with something else is no error of the code
settings.register_profile("patient", settings.default, deadline=None, print_blob=True)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests of a process; each asks it for databases of its own."""
    with running_postgres() as server:
        yield server
