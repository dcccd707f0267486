"""Whether Dagster's storage stops growing: days of runs, settling, pruning on a fake clock.

    python -m tests.benchmarks.bench_growth [--days 30] [--batches 4] [--storage sqlite] [--json]

A first batch of an hour, a later one, and a settling are really executed once; their events are
then told again for every hour of the days, with runs and partitions of their own, and old runs are
deleted every hour as by the schedule. A real line has up to 720 batches an hour, which all go
after six hours; what stays is what an hour leaves whatever its batches were. Runs other than live
ones are kept for a day here, so that the second day shows what stays. It fails where later days
add more than `KEPT_BYTES` an hour.
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

from dagster import DagsterInstance, DagsterRun, EventLogEntry
from dagster._core.test_utils import freeze_time
from dagster._core.utils import make_new_run_id
from dagster._serdes import deserialize_value, serialize_value

from iiot_platform.config.plant import BatchSettings, Plant
from iiot_platform.config.settings import DATABASE_URL, Settings
from iiot_platform.core.clock import MS_PER_HOUR, MS_PER_S, now_ms, partition_key
from iiot_platform.core.paths import Home
from iiot_platform.orchestration.instance import instance_environ, prepare_instance
from iiot_platform.orchestration.naming import SETTLE, line_names
from iiot_platform.orchestration.retention import prune
from iiot_platform.orchestration.space import reclaim, space
from tests.servers.postgres import running_postgres
from tests.servers.site import Site

LINE: Final = "press_1"
DAY_H: Final = 24
KEPT_BYTES: Final = 25_000
SETTINGS: Final = BatchSettings(keep_runs_s=DAY_H * 3_600)
_FIRST_DAY: Final = 2


class GrowthError(AssertionError):
    """Storage grows faster than what is meant to stay."""


class Recorded:
    """A run that was really executed, to be told again as if it were another."""

    def __init__(self, site: Site, job: str) -> None:
        self._instance = site.instance
        repository = site.definitions.get_repository_def()
        result = repository.get_job(job).execute_in_process(instance=site.instance)
        if not result.success:
            raise GrowthError(f"job '{job}' has failed")
        run = site.instance.get_run_by_id(result.run_id)
        if run is None:
            raise GrowthError(f"the run of job '{job}' is not there")
        self._run: DagsterRun = run
        entries = site.instance.all_logs(result.run_id)
        self._events = [serialize_value(entry) for entry in entries]
        found = {e.get_dagster_event().partition for e in entries if e.is_dagster_event} - {None}
        (self._partition,) = found

    def tell(self, hour: int, at_ms: int) -> None:
        """The same run for another hour, at a time."""
        run_id, at_s = make_new_run_id(), at_ms / MS_PER_S
        with freeze_time(datetime.fromtimestamp(at_s, UTC)):
            new = self._run._replace(run_id=run_id, status=DagsterRun("x").status)
            self._instance.add_run(new)
            for event in self._events:
                text = event.replace(self._run.run_id, run_id)
                text = text.replace(str(self._partition), partition_key(hour))
                entry = deserialize_value(text, EventLogEntry)
                self._instance.handle_new_event(entry._replace(timestamp=at_s))


@contextlib.contextmanager
def site(storage: str) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = None
        if storage == "postgresql":
            database = stack.enter_context(running_postgres()).database()
        home = Home(root / "var", database)
        prepare_instance(home)
        os.environ.pop(DATABASE_URL, None)
        os.environ.update(instance_environ(home, os.environ))
        plant = Plant.model_validate({"lines": [LINE]})
        settings = Settings(home=home, plant_path=root / "plant.yaml")
        now = now_ms() // MS_PER_HOUR * MS_PER_HOUR - MS_PER_HOUR // 2
        instance = stack.enter_context(DagsterInstance.get())
        yield Site(settings, plant, instance, now, names=list(line_names(plant.line_names)))


def recorded(at: Site) -> tuple[Recorded, Recorded, Recorded]:
    """The first batch of an hour, another one, and its settling."""
    found = []
    for _ in range(2):
        at.write(LINE)
        found.append(Recorded(at, f"live_{LINE}"))
        at.now_ms += 20_000
    at.now_ms += 2 * MS_PER_HOUR
    return found[0], found[1], Recorded(at, SETTLE)


def days_of(at: Site, days: int, batches: int) -> Iterator[dict[str, Any]]:
    first, later, settling = recorded(at)
    start = at.now_ms // MS_PER_HOUR - (days + 2) * DAY_H
    for hour in range(start, start + days * DAY_H):
        for number in range(batches):
            run = later if number else first
            run.tell(hour, hour * MS_PER_HOUR + number * MS_PER_HOUR // batches)
        settling.tell(hour - 1, hour * MS_PER_HOUR + MS_PER_HOUR // 10)
        end = datetime.fromtimestamp((hour + 1) * 3_600, UTC)
        open_hours = {(LINE, partition_key(hour))}
        prune(at.instance, SETTINGS, now=end, unsettled=open_hours)
        reclaim(at.instance)
        if (hour + 1 - start) % DAY_H == 0:
            yield _figures(at.instance, (hour + 1 - start) // DAY_H)


def _figures(instance: DagsterInstance, day: int) -> dict[str, Any]:
    found = space(instance)
    runs = instance.get_runs_count()
    return {"day": day, "bytes": found.bytes, "used": found.used, "runs": runs}


def growth(storage: str, days: int, batches: int) -> dict[str, Any]:
    """Disk use at the end of every day, and what an hour adds from the second day on."""
    with site(storage) as at:
        found: list[dict[str, Any]] = []
        for figures in days_of(at, days, batches):
            found.append(figures)
            sys.stderr.write(f"{storage}: {figures}\n")
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
    parser.add_argument("--batches", type=int, default=4, help="live batches an hour")
    parser.add_argument("--storage", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)  # Dagster prints every event
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
