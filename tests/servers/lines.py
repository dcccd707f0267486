"""Readings of a line, for tests that need some and do not mind which."""

from collections.abc import Sequence

from iiot_platform.core.capture_log import Record


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
