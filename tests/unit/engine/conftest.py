"""Every test has a home of its own with its ledger in a file; where all is asked for, also not.

What depends on the ledger's database is shown on a server by `tests/integration/engine`.
"""

import pytest

from tests.servers.ledgers import (
    ON_BOTH,
    POSTGRESQL,
    SQLITE,
    home,
    ledger_database,
    no_wait_for_the_disk,
)

__all__ = ["home", "ledger_database", "no_wait_for_the_disk"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if ON_BOTH:
        metafunc.parametrize("ledger_database", [SQLITE, POSTGRESQL], indirect=True)
