"""What compaction gains and what it costs: reading an hour before and after, commits beside it.

`python -m tests.benchmarks.bench_compaction [RECORDS_PER_SECOND]`
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb

from buffer_service.delivery import Delivery
from buffer_service.log import seal
from buffer_service.log.capture import CaptureLog
from buffer_service.log.manifest import Change
from buffer_service.log.upkeep import Upkeep
from iiot_platform.config.plant import BufferSettings
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import now_us
from iiot_platform.core.paths import Home
from iiot_platform.engine.log_reader import LogReader
from iiot_platform.engine.log_verify import SealedLog

LINE = "line1"
SECONDS = 3_600
HOUR_US = 3_600_000_000
COMMIT_EVERY_S = 0.02
COMMITS = 300
REPEAT = 5


def write_hour(log: CaptureLog, per_second: int) -> None:
    """An hour that is over, a segment a second."""
    begin = now_us() // HOUR_US * HOUR_US - 2 * HOUR_US
    for second in range(SECONDS):
        batch = log.new_batch()
        records = [
            Record(
                "mqtt",
                f"{LINE}/press/t{n % 7}",
                b'{"SensorName":"t","SensorValue":%d.%d,"TimeStamp":%d}'
                % (second, n, (begin + second * 1_000_000) // 1_000),
                begin + second * 1_000_000 + n,
            )
            for n in range(per_second)
        ]
        batch.add("mqtt", [Delivery(LINE, record, n) for n, record in enumerate(records)])
        log.commit(batch)
        log.commit(log.new_batch(), log.seal())


def best(call: Callable[[], object]) -> float:
    """The fastest of some calls, in seconds."""
    found = []
    for _ in range(REPEAT):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def reading(home: Home, total: int) -> dict[str, float]:
    """Seconds for what the platform asks of the log."""
    reader = LogReader(home)
    files = [str(home.capture / segment.path) for segment in SealedLog(home).segments(LINE)]
    names = ", ".join(f"'{name}'" for name in files)

    def query() -> object:
        with duckdb.connect() as db:
            return db.sql(
                f"SELECT topic, count(*) FROM read_parquet([{names}]) GROUP BY topic"
            ).fetchall()

    return {
        "read the hour": best(lambda: reader.read(LINE, [(0, total)])),
        "read a record": best(lambda: reader.read(LINE, [(total // 2, total // 2 + 1)])),
        "duckdb, count by topic": best(query),
        "bytes": float(sum(Path(name).stat().st_size for name in files)),
    }


def commits(log: CaptureLog, upkeep: Upkeep | None) -> list[float]:
    """Seconds of each commit, with or without upkeep beside it."""
    found = []
    for number in range(COMMITS):
        batch = log.new_batch()
        record = Record("mqtt", f"{LINE}/press/x", bytes(60), now_us())
        batch.add("mqtt", [Delivery("line2", record, n) for n in range(100)])
        changes: Sequence[Change] = upkeep.pending if upkeep is not None else ()
        began = time.perf_counter()
        log.commit(batch, changes=changes)
        found.append(time.perf_counter() - began)
        if upkeep is not None and changes:
            upkeep.listed()
        if upkeep is not None and upkeep.report.compactions and number > COMMITS // 3:
            break
        threading.Event().wait(COMMIT_EVERY_S)
    return found


def say(what: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    p95 = ordered[int(len(ordered) * 0.95)]
    print(  # noqa: T201 - the result
        f"commit {what}: n {len(ordered)}, p50 {statistics.median(ordered) * 1e3:.1f} ms,"
        f" p95 {p95 * 1e3:.1f} ms, max {ordered[-1] * 1e3:.1f} ms"
    )


def main(arguments: Sequence[str]) -> None:
    per_second = int(arguments[0]) if arguments else 20
    total = per_second * SECONDS
    seal.warm()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        with CaptureLog(home) as log:
            write_hour(log, per_second)
            before = reading(home, total)
            say("alone", commits(log, None))
            settings = BufferSettings(compact_after_s=1.0, compact_rows=max(200_000, total))
            upkeep = Upkeep(home, settings)
            began = time.perf_counter()
            upkeep.start()
            beside = commits(log, upkeep)
            while not upkeep.report.compactions:
                beside += commits(log, upkeep)
            say("beside compaction", beside)
            took = time.perf_counter() - began
            upkeep.stop()
        after = reading(home, total)
        segments = len(SealedLog(home).segments(LINE))
    print(f"{total:,} records, {SECONDS} segments -> {segments}, in {took:.1f} s")  # noqa: T201 - the result
    for name, value in before.items():
        unit = "" if name == "bytes" else " s"
        print(f"{name}: {value:.4g}{unit} -> {after[name]:.4g}{unit}, {value / after[name]:.1f} x")  # noqa: T201 - the result


if __name__ == "__main__":
    main(sys.argv[1:])
