"""Hours computed again under the current settings, in order, beside live batches."""

from collections.abc import Callable, Sequence
from typing import Final

from iiot_platform.engine.engine import Engine
from iiot_platform.engine.errors import CommitLostError
from iiot_platform.engine.report import HourReport

_ATTEMPTS: Final = 5


def backfill(
    engine: Engine,
    line: str,
    hours: Sequence[int],
    *,
    run_id: str,
    on_hour: Callable[[HourReport], None] = lambda _: None,
) -> list[HourReport]:
    """Assigns the current settings to hours and computes them whole, oldest first.

    A live batch that changes an hour meanwhile wins; the hour is then computed once more. Hours
    behind the range that went on from another state become dirty and keep their settings.

    Args:
        engine: has the plant whose settings are the current ones.
        line: name of the line.
        hours: the hours.
        run_id: goes on every row.
        on_hour: told of every hour that is done.

    Raises:
        CommitLostError: an hour was changed again and again meanwhile.
        StorageError: the log, the tables or the ledger can not be read or written.
    """
    reports = []
    for hour in sorted(hours):
        reports.append(_computed(engine, line, hour, run_id))
        on_hour(reports[-1])
    return reports


def _computed(engine: Engine, line: str, hour: int, run_id: str) -> HourReport:
    for _ in range(_ATTEMPTS - 1):
        try:
            return engine.rerun(
                line, hour, run_id=run_id, settings="current", kind="backfill"
            ).report
        except CommitLostError:
            continue
    return engine.rerun(line, hour, run_id=run_id, settings="current", kind="backfill").report
