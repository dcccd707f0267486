"""Readings of a line, for tests that need some and do not mind which."""

from collections.abc import Sequence

from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import MS_PER_HOUR, hour_of


def signal_records(line: str, times_ms: Sequence[int], *, device: str = "t") -> list[Record]:
    """One signal reading per time, received at that time."""
    return [
        Record(
            source="mqtt",
            topic=f"{line}/press/{device}",
            payload=(
                f'{{"LineName":"{line}","MachineName":"press","SensorName":"{device}",'
                f'"SensorValue":{20 + ts % 7},"TimeStamp":{ts}}}'
            ).encode(),
            received_ts=ts * 1_000,
        )
        for ts in times_ms
    ]


def within_its_hour(start_ms: int, length_ms: int) -> int:
    """A start, earlier where its hour would end within this length."""
    return min(start_ms, (hour_of(start_ms) + 1) * MS_PER_HOUR - length_ms)
