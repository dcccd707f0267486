"""Times: everywhere UTC, event time in integer milliseconds, intervals half-open.

An *hour* is the integer count of hours since the Unix epoch; it names a partition.
"""

import time
from datetime import UTC, datetime

MS_PER_S = 1_000
MS_PER_HOUR = 3_600_000
PARTITION_KEY_FORMAT = "%Y-%m-%d-%H:%M"


def now_ms() -> int:
    """The current time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def now_us() -> int:
    """The current time in Unix microseconds."""
    return time.time_ns() // 1_000


def hour_of(ts_ms: int) -> int:
    """The hour (count since the epoch) that an event time belongs to."""
    return ts_ms // MS_PER_HOUR


def hour_start_ms(hour: int) -> int:
    """The first millisecond of an hour; the hour ends, exclusive, where the next starts."""
    return hour * MS_PER_HOUR


def from_ms(ts_ms: int) -> datetime:
    """Unix milliseconds as an aware UTC datetime, exact to the millisecond."""
    seconds, ms = divmod(ts_ms, MS_PER_S)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=ms * 1_000)


def to_ms(moment: datetime) -> int:
    """An aware datetime as Unix milliseconds; a naive one is refused.

    Raises:
        ValueError: `moment` carries no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone; write it as UTC or with an offset")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * MS_PER_S + delta.microseconds // 1_000


def partition_key(hour: int) -> str:
    """The Dagster partition key of an hour, for example `2026-11-22-09:00`."""
    return from_ms(hour_start_ms(hour)).strftime(PARTITION_KEY_FORMAT)


def hour_from_key(key: str) -> int:
    """The hour that a Dagster partition key names.

    Raises:
        ValueError: `key` is not of the form `2026-11-22-09:00`.
    """
    return hour_of(to_ms(datetime.strptime(key, PARTITION_KEY_FORMAT).replace(tzinfo=UTC)))
