"""A recording in a CSV file: a time column, a signal per numeric column, label columns."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from simulator.errors import RecordingError, nearest
from simulator.scenario import unix_ms

DEFAULT_LABEL_COLUMNS: Final = ("anomaly", "changepoint")
_TIME_COLUMNS: Final = ("datetime", "timestamp", "time", "date", "ts")
_DELIMITERS: Final = (";", "\t", "|", ",")
_ILLEGAL: Final = str.maketrans({"/": "%2F", "+": "%2B", "#": "%23", "\0": "%00"})
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SECONDS_END: Final = 1e11
"""A number of a time column below this is in seconds, else in milliseconds."""


@dataclass(frozen=True)
class Recording:
    """The rows of a file in its order.

    Attributes:
        times_ms: Unix ms of each row.
        signals: each signal's values, by the name it is published as; None where a cell holds
            no finite number.
        labels: for each label column, by its name, whether each row is labelled.
        renamed: header names that can not be a topic level, and what they became.
    """

    times_ms: list[int]
    signals: dict[str, list[float | None]]
    labels: dict[str, list[bool]]
    renamed: dict[str, str]

    @property
    def skipped(self) -> int:
        """Cells of signals that hold no finite number."""
        return sum(values.count(None) for values in self.signals.values())


def device_name(header: str) -> str:
    """A header as a topic level: kept as it is, illegal characters percent-encoded."""
    return header.translate(_ILLEGAL)


def read_recording(
    path: Path,
    *,
    time_column: str | None = None,
    label_columns: Sequence[str] = DEFAULT_LABEL_COLUMNS,
    timezone: str | None = None,
    delimiter: str | None = None,
    decimal_comma: bool = False,
) -> Recording:
    """Read a whole recording.

    Args:
        path: the file; UTF-8, the first row names the columns.
        time_column: its time column; default one called datetime, timestamp, time, date or ts,
            else the first.
        label_columns: columns that say what is wrong instead of measuring, in any case.
        timezone: zone of times that carry none; default UTC.
        delimiter: default the one that gives the most columns.
        decimal_comma: numbers are written `1,5`.

    Raises:
        RecordingError: the file can not be read, has no such column, or a time is no time.
    """
    zone: tzinfo = UTC if timezone is None else _zone(path, timezone)
    header, rows = _table(path, delimiter)
    place = _time_place(path, header, time_column)
    times_ms = [
        _time_ms(path, number, row[place], zone) for number, row in enumerate(rows, start=2)
    ]
    marks = {name.lower() for name in label_columns}
    signals: dict[str, list[float | None]] = {}
    labels: dict[str, list[bool]] = {}
    renamed: dict[str, str] = {}
    for i, name in enumerate(header):
        if i == place:
            continue
        values = [_number(row[i], decimal_comma=decimal_comma) for row in rows]
        if name.lower() in marks:
            labels[name] = [bool(value) for value in values]
        elif any(value is not None for value in values):
            device = device_name(name)
            if device in signals:
                raise RecordingError(str(path), "header", f"'{name}' stands twice")
            signals[device] = values
            if device != name:
                renamed[name] = device
    if not signals:
        raise RecordingError(str(path), "header", f"no numeric column among {header}")
    return Recording(times_ms, signals, labels, renamed)


def _table(path: Path, delimiter: str | None) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            best = delimiter or max(_DELIMITERS, key=first.count)
            table = [row for row in csv.reader(file, delimiter=best) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(str(path), "file", f"can not be read as CSV: {error}") from error
    if len(table) < 2:  # noqa: PLR2004 - header and a row
        raise RecordingError(str(path), "file", "holds no rows; a header and rows are expected")
    header = [name.strip() for name in table[0]]
    for number, row in enumerate(table[1:], start=2):
        if len(row) != len(header):
            raise RecordingError(
                str(path), f"row {number}", f"has {len(row)} cells, the header has {len(header)}"
            )
    empty = [i + 1 for i, name in enumerate(header) if not name]
    if empty:
        raise RecordingError(str(path), "header", f"column {empty[0]} has no name")
    return header, table[1:]


def _time_place(path: Path, header: list[str], wanted: str | None) -> int:
    if wanted is None:
        return next((i for i, name in enumerate(header) if name.lower() in _TIME_COLUMNS), 0)
    if wanted not in header:
        raise RecordingError(str(path), "header", f"no '{wanted}'; {nearest(wanted, header)}")
    return header.index(wanted)


def _zone(path: Path, name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:
        raise RecordingError(
            str(path), "timezone", f"'{name}' is no time zone such as UTC or Europe/Berlin"
        ) from error


def _time_ms(path: Path, number: int, text: str, zone: tzinfo) -> int:
    text = text.strip()
    if _NUMBER.fullmatch(text):
        value = float(text)
        return math.floor(value * 1000 if value < _SECONDS_END else value)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise RecordingError(
            str(path),
            f"row {number}",
            f"'{text}' is no time; ISO 8601 (2020-03-01 15:44:06) or Unix time is expected",
        ) from error
    return unix_ms(moment if moment.tzinfo else moment.replace(tzinfo=zone))


def _number(cell: str, *, decimal_comma: bool) -> float | None:
    text = cell.strip()
    if decimal_comma:
        text = text.replace(",", ".")
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
