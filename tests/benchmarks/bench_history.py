"""What a line's history costs: backfills of hours, a day, a week, and live batches behind a month.

Run with `python -m tests.benchmarks.bench_history [--json] [--spans 1:1000,168:1000]`; without
spans it takes some five minutes. A backfill is measured in a process of its own, so that its peak
memory is that of the work alone. Machines differ and are busy: the ratios within one run count.
"""

import argparse
import json
import random
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from iiot_platform.config.plant import Plant
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.backfill import backfill
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.ledger import Ledger
from tests.servers.capture_log import write_segments
from tests.servers.streams import BASE_MS, HOUR_MS

LINE = "line1"
SERIES = 20
SPANS = "1:1000,24:1000,1:10000,24:10000,168:10000"
"""Hours, and ms between two readings of a signal; a week at 1 Hz (168:1000) takes long to write."""
DAY_H = 24
MINUTE_MS = 60_000
SEGMENT_ROWS = 20_000
HISTORIES_H = (1, 720)
BATCHES_AN_HOUR = 60
"""Rows of lineage that a month holds for each hour."""
LIVE_ROWS = 200
FEW = 10
LIVE_STEP_MS = 10_000
WARM_UP = 15
LIVE_BATCHES = 45
ROUNDS = 3
_BY_HOUR = (db.PARTITIONS, db.ASSIGNMENTS, db.FILES, db.STATES, db.RANGES)
_COUNT = "SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :n"
_VALUES = [round(random.Random(1).gauss(20, 0.5), 3) for _ in range(9_973)]  # prime: no period


def plant(threshold: float) -> Plant:
    return Plant.model_validate({"lines": [LINE], "defaults": {"signal": {"threshold": threshold}}})


def readings(start_ms: int, end_ms: int, step_ms: int) -> Iterator[Record]:
    """Readings of twenty signals, received at once."""
    for at in range(start_ms, end_ms, step_ms):
        for series in range(SERIES):
            ts = at + series * 7
            value = _VALUES[(ts // 7) % len(_VALUES)]
            payload = (
                f'{{"LineName":"{LINE}","MachineName":"press","SensorName":"s{series}",'
                f'"SensorValue":{value},"TimeStamp":{ts}}}'
            )
            topic = f"{LINE}/press/s{series}"
            yield Record("mqtt", topic, payload.encode(), (ts + 20) * 1_000)


def write(home: Home, hours: int, step_ms: int) -> None:
    """Hours of readings, one at a time."""
    for hour in range(hours):
        start = BASE_MS + hour * HOUR_MS
        records = list(readings(start, start + HOUR_MS, step_ms))
        write_segments(home, LINE, records, rows=SEGMENT_ROWS)


def catch_up(home: Home) -> dict[str, float]:
    """Takes a log into the tables by live batches, as they are after a long stop."""
    with closing(Engine(home, plant(4.0))) as engine:
        rows = engine.log.head(LINE)
        cpu = _cpu_s(lambda: all(iter(lambda: engine.run_batch(LINE, run_id="live"), None)))
    return {"readings_per_cpu_s": rows / cpu, "peak_mib": _peak_mib()}


def compute_again(home: Home) -> dict[str, float]:
    """A backfill of every hour under a threshold that has changed."""
    with closing(Engine(home, plant(3.0))) as engine:
        rows, hours = engine.log.head(LINE), engine.ledger.hours(LINE)
        started = time.perf_counter()
        cpu = _cpu_s(lambda: list(backfill(engine, LINE, hours, run_id="backfill")))
        wall = time.perf_counter() - started
    return {
        "readings": rows,
        "readings_per_cpu_s": rows / cpu,
        "readings_per_s": rows / wall,
        "peak_mib": _peak_mib(),
    }


def write_history(home: Home, hours: int) -> None:
    """Hours of one reading a minute behind BASE_MS, with the lineage and log of real ones.

    The commits of a day are real; in the ledger the day is repeated before itself. Lineage has a
    batch for each minute, and the manifest a segment for each reading of the day.
    """
    real = min(hours, DAY_H)
    start = BASE_MS - real * HOUR_MS
    write_segments(home, LINE, list(readings(start, BASE_MS, MINUTE_MS)), rows=SEGMENT_ROWS)
    with closing(Engine(home, plant(4.0))) as engine:
        while engine.run_batch(LINE, run_id="history"):
            pass
        repeated = {table: (DAY_H, hours // DAY_H - 1) for table in _BY_HOUR if hours > real}
        repeated[db.BATCHES] = (0, hours * BATCHES_AN_HOUR)
        for table, (shift_h, times) in repeated.items():
            _repeat(engine.ledger, table, shift_h, times)
    with closing(sqlite3.connect(home.manifest)) as manifest, manifest:
        manifest.execute(
            f"WITH RECURSIVE n(i) AS ({_COUNT}) INSERT INTO segments SELECT stream, lo + i, hi,"
            " bytes, min_received, max_received, path, content_hash, chain_hash, sealed_at, NULL"
            " FROM segments, n WHERE lo + i < hi",
            {"n": SEGMENT_ROWS},
        )
        manifest.execute("UPDATE segments SET hi = lo + 1")


def _repeat(ledger: Ledger, table: sa.Table, shift_h: int, times: int) -> None:
    """Inserts the rows of a table again and again, each time in earlier hours."""
    names = [name for name in table.c.keys() if name != "id"]  # noqa: SIM118 - columns, not a dict
    values = [f"hour - {shift_h} * i" if name == "hour" else name for name in names]
    with ledger.transaction() as connection:
        connection.execute(
            sa.text(
                f"WITH RECURSIVE n(i) AS ({_COUNT}) INSERT INTO {table.name}"
                f" ({', '.join(names)}) SELECT {', '.join(values)}"
                f" FROM {table.name}, n"
            ),
            {"n": times},
        )


def live(*homes: Home) -> dict[str, float]:
    """Batches of ten seconds behind histories of several lengths, in turns, in one warm process.

    What else the machine does meets each of them alike. `<folder>.cpu_s` is the median.
    """
    batches = WARM_UP + LIVE_BATCHES
    records = list(readings(BASE_MS, BASE_MS + batches * LIVE_STEP_MS, MS_PER_S))
    costs: dict[str, list[float]] = {home.root.name: [] for home in homes}
    with ExitStack() as stack:
        engines = []
        for home in homes:
            write_segments(home, LINE, records, rows=LIVE_ROWS)
            engines.append(stack.enter_context(closing(Engine(home, plant(4.0)))))
        for number in range(batches):
            turns = list(zip(costs, engines, strict=True))
            for name, engine in turns if number % 2 else reversed(turns):
                take = partial(engine.run_batch, LINE, run_id="live", row_cap=LIVE_ROWS)
                costs[name].append(_cpu_s(take))
    return {f"{name}.cpu_s": statistics.median(found[WARM_UP:]) for name, found in costs.items()}


STEPS: dict[str, Callable[..., dict[str, float]]] = {
    "catch_up": catch_up,
    "backfill": compute_again,
    "live": live,
}


def backfills(folder: Path, spans: Sequence[tuple[int, ...]]) -> Iterator[dict[str, float]]:
    """A log of each length, taken into the tables and computed again.

    Ratios are to the shortest span of the same rate.
    """
    shortest: dict[int, dict[str, float]] = {}
    for hours, step_ms in spans:
        home = folder / f"{hours}h{step_ms}"
        write(Home(home), hours, step_ms)
        taken = _in_a_process("catch_up", home)
        again = _in_a_process("backfill", home)
        first = shortest.setdefault(step_ms, again)
        yield {
            "hours": hours,
            "hz": MS_PER_S / step_ms,
            "readings": again["readings"],
            **{f"catch_up_{name}": taken[name] for name in ("readings_per_cpu_s", "peak_mib")},
            **{
                f"backfill_{name}": again[name]
                for name in ("readings_per_cpu_s", "readings_per_s", "peak_mib")
            },
            **{
                f"{name}_ratio": again[name] / first[name]
                for name in ("readings_per_cpu_s", "peak_mib")
            },
        }
        shutil.rmtree(home)


def behind_history(folder: Path) -> dict[str, float]:
    """CPU time of a live batch behind short and long histories; the ratio of every round."""
    short, long = (f"{hours}h" for hours in HISTORIES_H)
    for hours in HISTORIES_H:
        write_history(Home(folder / f"{hours}h"), hours)
    found: dict[str, list[float]] = {short: [], long: []}
    for number in range(ROUNDS):
        copies = [folder / str(number) / name for name in found]
        for copy in copies:
            shutil.copytree(folder / copy.name, copy)
        costs = _in_a_process("live", *copies)
        for name, every in found.items():
            every.append(costs[f"{name}.cpu_s"])
    ratios = sorted(b / a for a, b in zip(found[short], found[long], strict=True))
    return {
        **{f"live_batch_cpu_ms_behind_{name}": min(every) * 1e3 for name, every in found.items()},
        "ratio": statistics.median(ratios),
        "ratio_lowest": ratios[0],
        "ratio_highest": ratios[-1],
    }


def _in_a_process(step: str, *homes: Path) -> dict[str, float]:
    places = map(str, homes)
    command = [sys.executable, "-m", "tests.benchmarks.bench_history", "--step", step, *places]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _cpu_s(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--spans", default=SPANS, help="hours:ms between readings, ...")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, *homes = arguments.step
        sys.stdout.write(json.dumps(STEPS[step](*(Home(Path(home)) for home in homes))))
        return
    spans = [tuple(map(int, span.split(":"))) for span in arguments.spans.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        history = behind_history(Path(folder))
        computed = list(backfills(Path(folder), spans))
    if arguments.json:
        found = {"backfills_of_20_signals": computed, "live_batch_of_200": history}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    table = Table(*computed[0], title="Backfills of 20 signals")
    for figures in computed:
        table.add_row(
            *(
                f"{figure:,.0f}" if figure == round(figure) or figure > FEW else f"{figure:.2f}"
                for figure in figures.values()
            )
        )
    Console().print(table)
    for name, figure in history.items():
        Console().print(f"{name}: {figure:.2f}")


if __name__ == "__main__":
    main()
