"""The composition root: everything that Dagster shows, from settings and a plant."""

from collections.abc import Callable
from datetime import datetime

from dagster import Definitions, in_process_executor

from iiot_platform.config.plant import Plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import now_ms
from iiot_platform.orchestration.assets import line_definitions
from iiot_platform.orchestration.delivery import delivery_to
from iiot_platform.orchestration.events import Reporter
from iiot_platform.orchestration.installation import Deliveries, Installation
from iiot_platform.orchestration.links import Links
from iiot_platform.orchestration.naming import line_names
from iiot_platform.orchestration.partitions import EARLIEST, hourly
from iiot_platform.orchestration.retention import prune_job
from iiot_platform.orchestration.schedules import (
    hourly_schedule,
    nightly_job,
    nightly_schedule,
    settle_job,
    settle_schedule,
)
from iiot_platform.orchestration.sensors import new_data_sensor
from iiot_platform.orchestration.tidying import tidy_job


def build_definitions(
    settings: Settings,
    plant: Plant,
    *,
    deliveries: Deliveries | None = None,
    clock: Callable[[], int] = now_ms,
    start: datetime = EARLIEST,
    plant_problem: Exception | None = None,
) -> Definitions:
    """The only wiring; opens no file and no connection.

    Args:
        settings: where state lives and which servers there are.
        plant: the plant file.
        deliveries: what makes the delivery to each sink; default: those that are configured.
        clock: Unix milliseconds.
        start: first hour that is shown.
        plant_problem: why the plant is an older one than the plant file, told by the sensor.

    Raises:
        NameClashError: two lines would have one name in Dagster.
    """
    if deliveries is None:
        deliveries = {name: delivery_to(name, sink) for name, sink in settings.sinks.items()}
    installation = Installation(settings, plant, deliveries=deliveries, clock=clock)
    hours = hourly(start)
    lines = line_names(plant.line_names)
    reporters = [Reporter(names, hours, Links.of(settings)) for names in lines]
    parts = [line_definitions(installation, reporter) for reporter in reporters]
    jobs = [job for part in parts for job in part.jobs]
    runs = [part.runs for part in parts]
    settle, nightly, tidy = settle_job(runs), nightly_job(runs), tidy_job(installation)
    prune = prune_job(installation, lines)
    return Definitions(
        assets=[asset for part in parts for asset in part.assets],
        jobs=[*jobs, settle, nightly, tidy, prune],
        schedules=[
            settle_schedule(installation, lines, settle),
            nightly_schedule(installation, lines, nightly),
            hourly_schedule(tidy, minute=35),
            hourly_schedule(prune, minute=50),
        ],
        sensors=[new_data_sensor(installation, reporters, jobs, plant_problem)],
        metadata={"plant_file": str(settings.plant_path), **_problem(plant_problem)},
        # the default executor starts a process for every step of a backfill
        executor=in_process_executor,
    )


def _problem(plant_problem: Exception | None) -> dict[str, str]:
    return {} if plant_problem is None else {"plant_file_is_broken": str(plant_problem)}
