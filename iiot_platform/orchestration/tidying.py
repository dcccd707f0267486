"""The job that deletes table files that nobody needs any more, and says which raw records.

Raw records are the buffer's to delete.
"""

from collections.abc import Iterator
from typing import Final

from dagster import (
    JobDefinition,
    OpExecutionContext,
    in_process_executor,
    job,
    op,
)

from iiot_platform.engine.consumed import publish
from iiot_platform.engine.garbage import collect
from iiot_platform.orchestration.events import Event
from iiot_platform.orchestration.installation import Installation
from iiot_platform.orchestration.naming import TIDY

GRACE_S: Final = 4 * 3_600.0
"""How long a file stays after it was replaced: longer than any run or reader takes."""


def tidy_job(installation: Installation) -> JobDefinition:
    """Deletes superseded table files and those of runs that died before their commit."""

    @op(name=f"{TIDY}_files", out={}, description="Deletes files that no version needs.")
    def delete(context: OpExecutionContext) -> Iterator[Event]:
        engine = installation.engine
        found = collect(
            engine.ledger,
            engine.store,
            grace_s=GRACE_S,
            keep_versions=installation.plant.batches.keep_versions,
        )
        context.log.info(
            "deleted %d superseded files and %d of dead runs, %.1f MB",
            found.superseded,
            found.orphans,
            found.bytes / 1e6,
        )
        told = publish(installation.settings.home, engine, engine.lines)
        context.log.info(
            "raw records that are needed no longer: %s",
            ", ".join(f"{line} below {found.needed_from}" for line, found in told.items()),
        )
        yield from ()  # an op without outputs is a generator

    @job(
        name=TIDY,
        description="Deletes table files that were replaced hours ago and are kept no longer.",
        executor_def=in_process_executor,
    )
    def tidy() -> None:
        delete()

    return tidy
