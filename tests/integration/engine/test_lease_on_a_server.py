"""What `tests/unit/engine/test_lease.py` shows, with the ledger on a PostgreSQL server."""

from tests.unit.engine.test_lease import *  # noqa: F403 - its tests, and the fixtures they name
