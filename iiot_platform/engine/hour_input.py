"""Where the readings of an hour come from: the log, or what is kept where that is gone."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.engine.decode import Decoded, Quarantined, decode
from iiot_platform.engine.kept_readings import KeptReadings, while_it_lasts
from iiot_platform.engine.lifecycle import History
from iiot_platform.engine.log_reader import LogReader, Range
from iiot_platform.engine.messages import COLUMNS
from iiot_platform.engine.partition import hour_of_each, split_hours
from iiot_platform.engine.readings import Readings, concat


class HourInput(NamedTuple):
    """Everything that an hour is computed from, beside states and settings.

    Attributes:
        readings: all of the hour's, in any order.
        quarantined: messages set aside that were received in the hour.
        kept_below: raw records before this offset were gone, and what they had decoded to was
            taken instead; 0: all were there.
    """

    readings: Readings
    quarantined: tuple[Quarantined, ...]
    kept_below: int


def hour_input(
    log: LogReader,
    kept: KeptReadings,
    history: History,
    hour: int,
    ranges: list[Range],
    settings: LineSettings,
    *,
    rows: int,
) -> HourInput:
    """The input of an hour: what the log says, and the tables where the log no longer does.

    Args:
        log: the capture log.
        kept: what the tables have of records that are gone.
        history: births and deaths of Sparkplug nodes.
        hour: the hour.
        ranges: offsets that hold records of the hour, among others.
        settings: those to decode under; they name the line.
        rows: about how many records are held at a time.

    Raises:
        StorageError: a file can not be read.
    """

    def read() -> HourInput:
        present, standing = kept.split(hour, ranges)
        readings, quarantined = [standing.readings], list(standing.quarantined)
        for some in _portions(present, rows):
            decoded = decode(log.read(settings.line, some, COLUMNS), settings, history)
            for found, of_hour, set_aside in by_hour(decoded):
                if found == hour:
                    readings.append(of_hour)
                    quarantined.extend(set_aside)
        return HourInput(concat(readings), tuple(quarantined), standing.below)

    return while_it_lasts(read, log, settings.line)


def by_hour(decoded: Decoded) -> list[tuple[int, Readings, tuple[Quarantined, ...]]]:
    """Readings by hour of event time and set-aside messages by hour of receive time."""
    received = np.array([entry.received for entry in decoded.quarantine], np.int64)
    set_aside: dict[int, list[Quarantined]] = {}
    for hour, entry in zip(hour_of_each(received).tolist(), decoded.quarantine, strict=True):
        set_aside.setdefault(hour, []).append(entry)
    readings = dict(split_hours(decoded.readings))
    empty = Readings.empty()
    return [
        (hour, readings.get(hour, empty), tuple(set_aside.get(hour, ())))
        for hour in sorted({*readings, *set_aside})
    ]


def _portions(ranges: list[tuple[int, int]], rows: int) -> Iterator[list[tuple[int, int]]]:
    """Ranges that are read at a time: about `rows` records, however small the ranges are."""
    some: list[tuple[int, int]] = []
    held = 0
    for lo, hi in ranges:
        if some and held + hi - lo > rows:
            yield some
            some, held = [], 0
        some.append((lo, hi))
        held += hi - lo
    if some:
        yield some
