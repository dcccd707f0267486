"""Runs unit tests of the engine once more, with their ledgers on a server.

A module here has those of one module there, whose names it imports.
"""

from typing import Final

import pytest

from tests.servers.ledgers import (
    ON_BOTH,
    POSTGRESQL,
    home,
    ledger_database,
    no_wait_for_the_disk,
)

__all__ = ["home", "ledger_database", "no_wait_for_the_disk"]

LONG: Final = {
    "test_a_database_that_follows_ends_with_what_the_tables_say",
    "test_a_rerun_that_a_live_batch_overtakes_loses",
    "test_a_late_row_ripples_no_further_than_the_states_differ",
}
"""Shown on a server only where all is asked for: IIOT_TEST_LEDGER=both."""


def pytest_pycollect_makeitem(name: str) -> list[pytest.Item] | None:
    # what is no test of this folder; None leaves the rest to pytest
    return [] if name in LONG and not ON_BOTH else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("ledger_database", [POSTGRESQL], indirect=True)
