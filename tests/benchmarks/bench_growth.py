"""Whether Dagster's storage stops growing: days of runs, settling, pruning on a fake clock.

    python -m tests.benchmarks.bench_growth [--days 30] [--batches 2] [--storage sqlite] [--json]

The jobs are the real ones, executed one after the other in this process, for one line: some live
batches an hour, the settling of each hour, a nightly rerun, and pruning every four hours. Real
plants run 720 batches an hour, which all go after six hours; what stays for ever is what an hour
leaves whatever its batches were. Runs other than live ones are kept for a day here, so that the
second day shows what stays. It fails where later days add more than `KEPT_BYTES` an hour.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dagster import DagsterInstance
from dagster._core.test_utils import freeze_time

from iiot_platform.config.plant import Plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import MS_PER_HOUR, MS_PER_S, now_ms
from iiot_platform.core.paths import Home
from iiot_platform.orchestration.instance import instance_environ, prepare_instance
from iiot_platform.orchestration.naming import NIGHTLY, PRUNE, SETTLE, line_names
from iiot_platform.orchestration.space import space
from tests.servers.postgres import running_postgres
from tests.servers.site import Site

LINE: Final = "press_1"
DAY_H: Final = 24
PRUNE_EVERY_H: Final = 4
ROWS: Final = 20
KEPT_BYTES: Final = 20_000
_FIRST_DAY: Final = 2


class GrowthError(AssertionError):
    """Storage grows faster than what is meant to stay."""


@contextlib.contextmanager
def site(storage: str, days: int) -> Iterator[Site]:
    """An installation whose clock starts so many days ago."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = None
        if storage == "postgresql":
            database = stack.enter_context(running_postgres()).database()
        home = Home(root / "var", database)
        prepare_instance(home)
        os.environ.update(instance_environ(home, os.environ))
        batches = {"keep_runs_s": DAY_H * 3_600, "nightly_hours": PRUNE_EVERY_H}
        plant = Plant.model_validate({"lines": [LINE], "batches": batches})
        settings = Settings(home=home, plant_path=root / "plant.yaml")
        start = now_ms() // MS_PER_HOUR * MS_PER_HOUR - (days + 1) * DAY_H * MS_PER_HOUR
        instance = stack.enter_context(DagsterInstance.get())
        yield Site(settings, plant, instance, start, names=list(line_names(plant.line_names)))


def execute(at: Site, job: str) -> None:
    repository = at.definitions.get_repository_def()
    with freeze_time(datetime.fromtimestamp(at.now_ms / MS_PER_S, UTC)):
        if not repository.get_job(job).execute_in_process(instance=at.instance).success:
            raise GrowthError(f"job '{job}' has failed")


def live_through(at: Site, hour: int, batches: int) -> None:
    """One hour, and the settling of the one before."""
    start = at.now_ms
    for number in range(batches):
        at.now_ms = start + (number + 1) * MS_PER_HOUR // (batches + 1)
        at.write(LINE, rows=ROWS)
        execute(at, f"live_{LINE}")
        if number == 0:
            execute(at, SETTLE)
    at.now_ms = start + MS_PER_HOUR
    if hour % PRUNE_EVERY_H == 0:
        execute(at, PRUNE)
    if hour % DAY_H == 3:
        execute(at, NIGHTLY)


def days_of(at: Site, days: int, batches: int) -> Iterator[dict[str, Any]]:
    for day in range(1, days + 1):
        for hour in range(DAY_H):
            live_through(at, (day - 1) * DAY_H + hour, batches)
        execute(at, PRUNE)
        found = space(at.instance)
        yield {
            "day": day,
            "bytes": found.bytes,
            "used": found.used,
            "runs": at.instance.get_runs_count(),
        }


def growth(storage: str, days: int, batches: int) -> dict[str, Any]:
    """Disk use at the end of every day, and what an hour adds from the second day on."""
    with site(storage, days) as at:
        found = []
        for figures in days_of(at, days, batches):
            sys.stderr.write(f"{storage}: {figures}\n")
            found.append(figures)
    first, last = found[min(_FIRST_DAY, days) - 1], found[-1]
    hours = max(1, last["day"] - first["day"]) * DAY_H
    return {
        "storage": storage,
        "batches_an_hour": batches,
        "days": found,
        "kept_bytes_a_line_hour": round((last["used"] - first["used"]) / hours),
        "kept_runs_a_line_hour": round((last["runs"] - first["runs"]) / hours, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--batches", type=int, default=2, help="live batches an hour")
    parser.add_argument("--storage", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    arguments = parser.parse_args()
    logging.getLogger("dagster").setLevel(logging.ERROR)
    for storage in arguments.storage or ("sqlite", "postgresql"):
        figures = growth(storage, arguments.days, arguments.batches)
        if arguments.json:
            sys.stdout.write(json.dumps(figures) + "\n")
        else:
            sys.stdout.write(f"{storage}: day, MB, of these in use, runs\n")
            for day in figures["days"]:
                megabytes = f"{day['bytes'] / 1e6:8.2f} {day['used'] / 1e6:8.2f}"
                sys.stdout.write(f"{day['day']:4d} {megabytes} {day['runs']:6d}\n")
            kept = figures["kept_bytes_a_line_hour"]
            sys.stdout.write(f"an hour of a line leaves {kept} bytes\n")
        if figures["kept_bytes_a_line_hour"] > KEPT_BYTES:
            raise GrowthError(f"an hour leaves {figures['kept_bytes_a_line_hour']} bytes for ever")


if __name__ == "__main__":
    main()
