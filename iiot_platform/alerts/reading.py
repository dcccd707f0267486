"""The tables that the rules depend on, read in intervals of one step."""

from typing import Final

from iiot_platform.alerts.lifecycle import STEP_MS
from iiot_platform.alerts.samples import (
    LINE_RULES,
    OFFSET_MS,
    SHIFT,
    TESTED,
    Frames,
    last_heard,
    ratio_columns,
)
from iiot_platform.client import Client
from iiot_platform.config.alerts import AlertSettings
from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_S, from_ms

_RUN: Final = "run_id"


def frames(client: Client, line: str, moments: range, settings: AlertSettings) -> Frames:
    """What the rules need at the moments.

    Raises:
        UnknownNameError: nothing of the line has been computed.
        StorageError: the tables can not be read.
    """
    first, end = from_ms(moments[0] - STEP_MS), from_ms(moments[-1])
    widest = max(settings.rule(name, line).window_s for name in LINE_RULES)
    back = from_ms(moments[0] - STEP_MS - round(widest * MS_PER_S))
    tested = {}
    for table in TESTED:
        shift = [SHIFT] if SHIFT in table.names("field") else []
        newest = (*ratio_columns(table), *shift, _RUN)
        tested[table.name] = client.intervals(
            line, table.name, every_ms=STEP_MS, start=first, end=end, newest=newest
        )
    summary = client.intervals(
        line,
        schema.LINE_SUMMARY.name,
        every_ms=STEP_MS,
        start=back,
        end=end,
        total=("quarantined", "lateness_mean_s"),
    )
    quality = client.intervals(
        line, schema.DATA_QUALITY.name, every_ms=STEP_MS, start=back, end=end, total=("count",)
    )
    activity = client.intervals(
        line,
        schema.ACTIVITY.name,
        every_ms=STEP_MS,
        start=from_ms(moments[0] - STEP_MS - OFFSET_MS),
        end=from_ms(moments[-1] + OFFSET_MS),
        by=("series",),
        highest=("lateness_max_ms",),
        total=("readings",),
    )
    return Frames(tested, summary, quality[quality["reason"] == schema.GAP], activity)


def heard_before(
    client: Client, line: str, moment_ms: int, settings: AlertSettings
) -> dict[str, int]:
    """Which devices are expected at a moment, and when each was last heard."""
    widest = settings.rule("silent_device", line).window_s
    activity = client.intervals(
        line,
        schema.ACTIVITY.name,
        every_ms=STEP_MS,
        start=from_ms(moment_ms - round(widest * MS_PER_S)),
        end=from_ms(moment_ms + OFFSET_MS),
        by=("series",),
        highest=("lateness_max_ms",),
        total=("readings",),
    )
    rows = last_heard(activity)
    rows = rows[rows["heard_ms"] <= moment_ms]
    return {str(name): int(at) for name, at in rows.groupby("device")["heard_ms"].max().items()}
