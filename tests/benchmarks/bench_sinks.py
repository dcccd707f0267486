"""Points a second into real databases, one beside the other in one run: InfluxDB 1.6, PostgreSQL.

Run with `python -m tests.benchmarks.bench_sinks [--json] [--points N]`. Both write to the disk as
they are installed. `again` writes rows that stand already, `rewrite` an hour in place of itself.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from iiot_platform.config.settings import SinkSettings
from iiot_platform.core import schema
from iiot_platform.sinks.opening import open_sink
from iiot_platform.sinks.sink import Sink
from tests.reference.table_rows import make_rows
from tests.servers import influx
from tests.servers.databases import PostgresDatabase
from tests.servers.postgres import running_postgres

TABLES = (schema.SIGNALS, schema.SIGNAL_ANOMALIES, schema.VIBRATION_ANOMALIES)
START_MS = 1_795_338_000_000
Figures = dict[str, dict[str, float]]


def timed(sink: Sink, table: schema.Table, rows: pa.Table) -> float:
    """Points a second, in batches of what the sink likes best."""
    started = time.perf_counter()
    for start in range(0, rows.num_rows, sink.request_rows):
        sink.write(table, rows.slice(start, sink.request_rows))
    return rows.num_rows / (time.perf_counter() - started)


def measure(settings: SinkSettings, points: int) -> Figures:
    results: Figures = {}
    with open_sink(settings) as sink:
        sink.server()
        for table in TABLES:
            rows = make_rows(table, points, step_ms=10)
            figures = results[table.name] = {"new": timed(sink, table, rows)}
            figures["again"] = timed(sink, table, rows)
            started = time.perf_counter()
            sink.rewrite(table, "line1", START_MS, START_MS + 10 * points, rows)
            figures["rewrite"] = points / (time.perf_counter() - started)
    return results


def main() -> int:
    """Measure and say so, as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--points", type=int, default=50_000)
    options = parser.parse_args()
    results: dict[str, Figures] = {}
    with contextlib.ExitStack() as stack:
        if influx.missing() is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = stack.enter_context(influx.server(folder))
            results["influxdb"] = measure(server.settings, options.points)
        database = PostgresDatabase(stack.enter_context(running_postgres(durable=True)))
        results["postgresql"] = measure(database.settings, options.points)
    if "influxdb" in results:
        results["ratio"] = {
            table: {
                way: figure / results["influxdb"][table][way] for way, figure in figures.items()
            }
            for table, figures in results["postgresql"].items()
        }
    if options.json:
        sys.stdout.write(json.dumps(results, indent=2) + "\n")
        return 0
    for name, tables in results.items():
        for table, figures in tables.items():
            text = ", ".join(f"{way} {figure:,.2f}" for way, figure in figures.items())
            sys.stdout.write(f"{name} {table}: {text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
