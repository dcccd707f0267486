"""The hours of event time as Dagster partitions.

Dagster takes an event for any hour, and keeps it. Its pages count the hours of the definition: one
that was told before the definition had it is counted once the definition begins elsewhere, since
that makes Dagster count anew. So hours before the first one are told, and appear when the code
location is loaded the next time; hours ahead of the last one are not, because the definition grows
to them without beginning elsewhere.
"""

from datetime import UTC, datetime, time, timedelta
from typing import Final

from dagster import HourlyPartitionsDefinition

from iiot_platform.config.plant import Plant
from iiot_platform.core.clock import PARTITION_KEY_FORMAT, from_ms, hour_start_ms, partition_key
from iiot_platform.core.paths import Home
from iiot_platform.engine.ledger import Ledger

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""First hour for those who only execute runs: the hours that they are given are all behind it."""

_HOURS_AHEAD: Final = 2
"""The open hour, and the next for a clock that runs ahead."""


def hourly(start: datetime = EARLIEST) -> HourlyPartitionsDefinition:
    """Every hour from `start` to the one after the open hour."""
    return HourlyPartitionsDefinition(
        start_date=start, timezone="UTC", fmt=PARTITION_KEY_FORMAT, end_offset=_HOURS_AHEAD
    )


def is_partition(hours: HourlyPartitionsDefinition, hour: int) -> bool:
    """True where Dagster shows the hour, or will once its definition begins early enough."""
    return is_before(hours, hour) or hours.has_partition_key(partition_key(hour))


def is_before(hours: HourlyPartitionsDefinition, hour: int) -> bool:
    """True where the hour is older than the first one."""
    return from_ms(hour_start_ms(hour)) < hours.start


def history_start(home: Home, plant: Plant, now_ms: int) -> datetime:
    """The first hour to show: that of the plant file, or an older one that was computed.

    Where the plant file says nothing it is midnight (UTC) before the oldest hour, and before
    anything was computed that of yesterday.

    Raises:
        LedgerError: the ledger is there and can not be read.
    """
    wanted = plant.history_start
    first = None
    if Ledger.is_at(home):
        ledger = Ledger.of(home)
        first = ledger.first_hour()
        ledger.close()
    oldest = from_ms(now_ms) - timedelta(days=1) if first is None else from_ms(hour_start_ms(first))
    day = oldest.date()
    if wanted is not None:
        day = wanted if first is None else min(wanted, day)
    return datetime.combine(day, time(), UTC)
