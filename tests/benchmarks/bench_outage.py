"""The drain after an outage: one hour of twenty signals at 1 Hz that waits in the outbox.

Run with `python -m tests.benchmarks.bench_outage [--json] [--minutes N] [--signals N]`.
"""

import argparse
import contextlib
import gzip
import json
import sys
import tempfile
import time
from pathlib import Path

from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.outbox import LedgerOutbox
from iiot_platform.orchestration.delivery import delivery_to
from iiot_platform.sinks.influxdb import MAX_POINTS
from iiot_platform.sinks.line_protocol import render
from tests.reference.table_rows import make_rows
from tests.servers import influx
from tests.servers.capture_log import write_segments
from tests.servers.streams import BASE_MS, signal

LINE = "line1"
BATCH_S = 5


def outage(folder: Path, minutes: int, signals: int) -> dict[str, float]:
    """Computes in live batches with nobody to tell, then hands everything over."""
    home = Home(folder / "home")
    records = [
        signal(f"s{name:02}", BASE_MS + 1_000 * second + name, 20.0 + (second * 7 + name) % 11 / 10)
        for second in range(60 * minutes)
        for name in range(signals)
    ]
    write_segments(home, LINE, records, rows=signals * BATCH_S)
    with (
        contextlib.closing(
            Engine(home, Plant.model_validate({"lines": [LINE]}), sinks=("influxdb",))
        ) as engine,
        influx.server(folder) as server,
    ):
        begun = time.perf_counter()
        while engine.run_batch(LINE, run_id="live", row_cap=signals * BATCH_S):
            pass
        computed_s = time.perf_counter() - begun
        entries = LedgerOutbox(engine.ledger, engine.store, "influxdb").backlog(LINE)
        report = delivery_to("influxdb", server.settings)(engine).drain(LINE, 600.0)
    return {
        "batches_s": computed_s,
        "entries": entries,
        "points": report.points,
        "seconds": report.seconds,
        "points_per_s": report.points / report.seconds,
        "remaining": report.remaining,
    }


def compression() -> dict[str, float]:
    """What level 1 and the client's own level 9 cost and gain on a request."""
    body = render(schema.SIGNAL_ANOMALIES, make_rows(schema.SIGNAL_ANOMALIES, MAX_POINTS)).body()
    found: dict[str, float] = {"plain_bytes_per_point": len(body) / MAX_POINTS}
    for level in (1, 9):
        begun = time.perf_counter()
        size = len(gzip.compress(body, level))
        found[f"gzip_{level}_us_per_point"] = (time.perf_counter() - begun) * 1e6 / MAX_POINTS
        found[f"gzip_{level}_bytes_per_point"] = size / MAX_POINTS
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--signals", type=int, default=20)
    chosen = parser.parse_args()
    influx.require()
    with tempfile.TemporaryDirectory() as folder:
        found = outage(Path(folder), chosen.minutes, chosen.signals) | compression()
    if chosen.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for name, value in found.items():
            sys.stdout.write(f"{name:>26} {value:12,.2f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
