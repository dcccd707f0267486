"""What `tests/unit/engine/test_races.py` shows, with the ledger on a PostgreSQL server."""

from tests.unit.engine.test_races import *  # noqa: F403 - its tests, and the fixtures they name
