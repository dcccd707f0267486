"""The hours of event time as Dagster partitions."""

from datetime import UTC, datetime
from typing import Final

from dagster import HourlyPartitionsDefinition

from iiot_platform.core.clock import PARTITION_KEY_FORMAT, partition_key

START: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""First hour that can be a partition; never derived from data, since moving it discards what
Dagster knows of every partition."""

_HOURS_AHEAD: Final = 2
"""The open hour, and the next for a clock that runs ahead."""


def hourly(start: datetime = START) -> HourlyPartitionsDefinition:
    """Every hour from `start` to the one after the open hour."""
    return HourlyPartitionsDefinition(
        start_date=start, timezone="UTC", fmt=PARTITION_KEY_FORMAT, end_offset=_HOURS_AHEAD
    )


def is_partition(hours: HourlyPartitionsDefinition, hour: int) -> bool:
    """True where Dagster knows the hour.

    An event of an hour that it does not know would be stored and never be seen, not even when
    the hour becomes known.
    """
    return hours.has_partition_key(partition_key(hour))
