"""Cost of a point: rendered from Arrow, as Point objects, and written to a real InfluxDB.

Run with `python -m tests.benchmarks.bench_line_protocol [--json] [--points N]`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from influxdb_client.client.write.point import Point
from influxdb_client.domain.write_precision import WritePrecision

from iiot_platform.core import schema
from iiot_platform.sinks.influxdb import MAX_POINTS, InfluxSink
from iiot_platform.sinks.line_protocol import render
from tests.reference.table_rows import make_rows
from tests.servers import influx

TABLES = (schema.SIGNALS, schema.SIGNAL_ANOMALIES, schema.VIBRATION_ANOMALIES)
REPEATS = 5


def best_s(function: Callable[[], Any]) -> float:
    """The shortest of a few runs, in seconds."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def render_all(table: schema.Table, rows: pa.Table) -> int:
    """Render in the slices that the sink writes; the bytes are made too."""
    return sum(
        len(render(table, rows.slice(start, MAX_POINTS)).body())
        for start in range(0, rows.num_rows, MAX_POINTS)
    )


def render_points(table: schema.Table, rows: pa.Table) -> int:
    """The same lines through the client's Point objects."""
    tags, fields = table.names("tag"), table.names("field", "provenance")
    size = 0
    for row in rows.to_pylist():
        point = Point(table.measurement).time(row["ts"], WritePrecision.MS)
        for name in tags:
            point.tag(name, row[name])
        for name in fields:
            point.field(name, row[name])
        size += len(point.to_line_protocol()) + 1
    return size


def measure(points: int) -> dict[str, dict[str, float]]:
    """µs a point by table and way, and points a second into influxd where it is installed."""
    results: dict[str, dict[str, float]] = {}
    for table in TABLES:
        rows = make_rows(table, points)
        few = rows.slice(0, max(points // 20, 1))
        results[table.name] = {
            "render_us": best_s(lambda t=table, r=rows: render_all(t, r)) / points * 1e6,
            "point_objects_us": best_s(lambda t=table, r=few: render_points(t, r))
            / few.num_rows
            * 1e6,
        }
    if influx.missing() is None:
        with (
            tempfile.TemporaryDirectory() as folder,
            influx.server(Path(folder)) as server,
            InfluxSink(server.settings, timeout_s=30) as sink,
        ):
            for table in TABLES:
                rows = make_rows(table, points)
                started = time.perf_counter()
                sink.write(table, rows)
                results[table.name]["points_per_s"] = points / (time.perf_counter() - started)
    return results


def main() -> int:
    """Measure and say so, as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--points", type=int, default=50_000)
    options = parser.parse_args()
    results = measure(options.points)
    if options.json:
        sys.stdout.write(json.dumps(results, indent=2) + "\n")
        return 0
    for table, numbers in results.items():
        text = ", ".join(f"{name} {value:,.2f}" for name, value in numbers.items())
        sys.stdout.write(f"{table}: {text}\n")
    return 0


def test_arrow_renders_a_point_several_times_faster_than_point_objects() -> None:
    rows = make_rows(schema.SIGNALS, 5_000)
    vectorised = best_s(lambda: render_all(schema.SIGNALS, rows)) / rows.num_rows
    few = rows.slice(0, 500)
    objects = best_s(lambda: render_points(schema.SIGNALS, few)) / few.num_rows
    assert vectorised < objects / 4


if __name__ == "__main__":
    sys.exit(main())
