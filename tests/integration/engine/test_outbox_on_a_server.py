"""What `tests/unit/engine/test_outbox.py` shows, with the ledger on a PostgreSQL server."""

from tests.unit.engine.test_outbox import *  # noqa: F403 - its tests, and the fixtures they name
