"""CPU cost of decoding, of live batches and of whole hours.

Run with `python -m tests.benchmarks.bench_engine [--json]`; it takes about 15 s.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from iiot_platform.config.plant import Plant
from iiot_platform.config.sparkplug import SparkplugNodes, SparkplugSettings
from iiot_platform.core.capture_log import SEGMENT_SCHEMA, Record
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from iiot_platform.engine.decode import decode
from iiot_platform.engine.engine import Engine
from tests.servers import sparkplug, streams
from tests.servers.capture_log import write_segments

LINE = "line1"
PLANT = Plant.model_validate({"lines": [LINE]})
SERIES = 20
HOUR_S = 3_600
LIVE_ROWS = 200
LIVE_BATCHES = 40
WARM_UP = 15
DECODED = 5_000
_NOISE = random.Random(1)


def named(device: str, ts: int, **fields: object) -> Record:
    """A message with the names that a PLC sends along."""
    return streams.record(device, ts, LineName=LINE, MachineName="press", **fields)  # type: ignore[arg-type]


def signal(ts: int, device: str = "s") -> Record:
    value = round(_NOISE.gauss(20, 0.5), 3)
    return named(device, ts, SensorName=device, SensorValue=value)


NODES = SparkplugSettings(nodes=(SparkplugNodes(group="G"),))
_TEMPERATURE = sparkplug.metric(20.5, datatype=10, name="Temperature", alias=1)
BIRTH = sparkplug.spoken(
    "DBIRTH", "G/E/D", sparkplug.payload(_TEMPERATURE, ts=streams.BASE_MS, seq=0), streams.BASE_MS
)


def by_alias(ts: int) -> Record:
    value = round(_NOISE.gauss(20, 0.5), 3)
    metric = sparkplug.metric(value, datatype=10, alias=1, send_type=False)
    body = sparkplug.payload(metric, ts=ts, seq=ts % 256)
    return sparkplug.spoken("DDATA", "G/E/D", body, ts)


KINDS: dict[str, Callable[[int], Record]] = {
    "signal": signal,
    "state": lambda ts: named("m", ts, StateName="m", StateValue=ts % 3),
    "vibration": lambda ts: streams.vibration("b", ts, _NOISE),
    "valve": lambda ts: streams.valve("v", ts, "ExtendTime", 300),
    "electrical": lambda ts: streams.electrical("e", ts, _NOISE, running=True),
    "generic": lambda ts: named("g", ts, Temperature=22.5, Humidity=40),
    "Sparkplug": by_alias,
    "not JSON": lambda ts: signal(ts)._replace(payload=b"{not json"),
}


def hour(seconds: int) -> list[Record]:
    """Signals of twenty sensors at 1 Hz."""
    return [
        signal(streams.BASE_MS + second * 1_000 + series * 7, f"s{series}")
        for second in range(seconds)
        for series in range(SERIES)
    ]


def cpu_s(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def decoding() -> dict[str, float]:
    """Messages a CPU-second, by kind."""
    settings = PLANT.line_settings(LINE).model_copy(update={"sparkplug": NODES})
    found = {}
    for kind, make in KINDS.items():
        records = [make(streams.BASE_MS + i) for i in range(DECODED)]
        if kind == "Sparkplug":
            records[0] = BIRTH
        columns = {"offset": list(range(DECODED))} | {
            name: [getattr(record, name) for record in records] for name in Record._fields
        }
        table = pa.table(columns, schema=SEGMENT_SCHEMA)
        decoded = partial(decode, table, settings)
        found[kind] = DECODED / min(cpu_s(decoded) for _ in range(3))
    return found


def whole_hours(folder: Path) -> dict[str, float]:
    """An hour of 72,000 readings: as one live batch, and computed again."""
    readings = SERIES * HOUR_S
    write_segments(Home(folder), LINE, hour(HOUR_S), rows=5_000)
    engine = Engine(Home(folder), PLANT)
    batch = cpu_s(lambda: engine.run_batch(LINE, run_id="batch"))
    at = hour_of(streams.BASE_MS)
    rerun = min(cpu_s(lambda: engine.rerun(LINE, at, run_id="rerun")) for _ in range(3))
    return {
        "batch_us_per_reading": batch / readings * 1e6,
        "rerun_us_per_reading": rerun / readings * 1e6,
        "rerun_readings_per_cpu_s": readings / rerun,
    }


def live(folder: Path) -> dict[str, float]:
    """Batches of ten seconds of twenty sensors, in a process that is warm."""
    batches = WARM_UP + LIVE_BATCHES
    write_segments(Home(folder), LINE, hour(batches * LIVE_ROWS // SERIES), rows=LIVE_ROWS)
    engine = Engine(Home(folder), PLANT)

    def take(count: int) -> None:
        for _ in range(count):
            assert engine.run_batch(LINE, run_id="live", row_cap=LIVE_ROWS)

    take(WARM_UP)
    started = time.perf_counter()
    cpu = cpu_s(lambda: take(LIVE_BATCHES))
    wall = time.perf_counter() - started
    return {
        "live_batch_cpu_s": cpu / LIVE_BATCHES,
        "live_batch_wall_s": wall / LIVE_BATCHES,
        "live_us_per_reading": cpu / LIVE_BATCHES / LIVE_ROWS * 1e6,
    }


def measure() -> dict[str, Any]:
    """Every figure."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            "decode_messages_per_cpu_s": decoding(),
            **whole_hours(Path(folder, "hour")),
            **live(Path(folder, "live")),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    arguments = parser.parse_args()
    found = measure()
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    table = Table("what", "figure", title="CPU cost of the engine")
    for kind, rate in found.pop("decode_messages_per_cpu_s").items():
        table.add_row(f"decode, {kind}, messages/CPU-s", f"{rate:,.0f}")
    for name, figure in found.items():
        table.add_row(name, f"{figure:,.3f}" if figure < 1 else f"{figure:,.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
