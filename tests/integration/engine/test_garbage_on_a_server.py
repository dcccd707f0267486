"""What `tests/unit/engine/test_garbage.py` shows, with the ledger on a PostgreSQL server."""

from tests.unit.engine.test_garbage import *  # noqa: F403 - its tests, and the fixtures they name
