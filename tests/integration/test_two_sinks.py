"""Two databases behind one ledger: each has all, whatever befalls the other."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from iiot_platform.config.settings import INFLUXDB, POSTGRESQL
from iiot_platform.core import clock
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.outbox import LedgerOutbox
from iiot_platform.orchestration.delivery import SinkDelivery, delivery_to
from tests.reference.sink_rows import compared
from tests.servers import databases
from tests.servers.capture_log import write_segments
from tests.servers.databases import Database
from tests.servers.engines import LINE, PLANT, settle
from tests.servers.streams import disturb, line_records

DRAIN_S = 60.0


@pytest.fixture
def both(tmp_path: Path) -> Iterator[dict[str, Database]]:
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(databases.running(name, tmp_path / name))
            for name in (INFLUXDB, POSTGRESQL)
        }


@pytest.mark.parametrize("away", [INFLUXDB, POSTGRESQL])
def test_one_that_is_away_catches_up_while_the_other_follows(
    both: dict[str, Database], tmp_path: Path, away: str
) -> None:
    home = Home(tmp_path / "home")
    (there,) = both.keys() - {away}
    write_segments(home, LINE, disturb(line_records(3, 240), 3), rows=20)
    with contextlib.closing(Engine(home, PLANT, sinks=both)) as engine:
        deliveries: dict[str, SinkDelivery] = {
            name: delivery_to(name, one.settings)(engine) for name, one in both.items()
        }
        both[away].kill()
        while engine.run_batch(LINE, run_id="run", row_cap=20):
            assert deliveries[there].drain(LINE, DRAIN_S).error is None
        failed = deliveries[away].drain(LINE, DRAIN_S)
        assert "does not answer" in str(failed.error)
        compared(both[there], engine, LINE)
        settle(engine)
        both[away].start()
        LedgerOutbox(engine.ledger, engine.store, away).failed(LINE, "", clock.now_ms() - 1)
        for delivery in deliveries.values():
            report = delivery.drain(LINE, DRAIN_S)
            assert (report.error, report.remaining, report.rejected) == (None, 0, 0)
        for database in both.values():
            compared(database, engine, LINE)
