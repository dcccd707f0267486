"""Maintenance windows: when alerts are held back, in the plant's own time."""

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from iiot_platform.config.level_name import LevelName
from iiot_platform.config.shifts import time_of_day
from iiot_platform.core.clock import from_ms, to_ms
from iiot_platform.core.parameters import Parameters

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)
_LONGEST: Final = timedelta(days=400)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ValueError("should be a time such as '2026-04-03 06:00', in quotes") from error


def _text(text: str) -> str:
    return text.strip()


class Maintenance(Parameters):
    """A time in which alerts are held back: once, or every week where `days` are given.

    Attributes:
        name: what it is.
        lines: names of lines, `*` and `?` allowed; empty: the whole plant.
        days: days on which it begins every week; empty: it happens once.
        begin: `from` in the file: a time such as `2026-04-03 06:00`, or with `days` a time of day.
        end: `to` in the file; a time of day that is not behind `from` belongs to the next day.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: LevelName
    lines: tuple[str, ...] = ()
    days: tuple[Day, ...] = ()
    begin: Annotated[str, AfterValidator(_text), Field(alias="from")]
    end: Annotated[str, AfterValidator(_text), Field(alias="to")]

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.days:
            time_of_day(self.begin)
            time_of_day(self.end)
            return self
        begin, end = _moment(self.begin), _moment(self.end)
        if (begin.tzinfo is None) != (end.tzinfo is None):
            raise ValueError("should give both 'from' and 'to' a zone, or neither")
        if not begin < end:
            raise ValueError(f"should end behind its start; got {self.begin} to {self.end}")
        if end - begin > _LONGEST:
            raise ValueError(f"should last {_LONGEST.days} days at most")
        return self

    def covers(self, line: str) -> bool:
        """True where it holds the alerts of a line back."""
        return not self.lines or any(fnmatch.fnmatchcase(line, one) for one in self.lines)

    @property
    def once(self) -> tuple[datetime, datetime]:
        """Begin and end of one that happens once, without a zone: in the plant's."""
        return _moment(self.begin), _moment(self.end)

    @property
    def minutes(self) -> tuple[int, int]:
        """Begin and end of a weekly one, in minutes since its day began; the end may be behind it.

        An end at the begin or before it belongs to the next day.
        """
        begin, end = _minute(self.begin), _minute(self.end)
        return begin, end if end > begin else end + 24 * 60


class Span(NamedTuple):
    """A time [start, end) in Unix ms."""

    start_ms: int
    end_ms: int


class MaintenanceCalendar:
    """Tells when the alerts of a line are held back.

    A time that the clocks show twice counts from its first showing to its last; one that they
    skip is the moment at which they skip it.

    Args:
        windows: as the plant file has them.
        timezone: the zone whose clocks they are read from.
    """

    def __init__(self, windows: Sequence[Maintenance], timezone: str) -> None:
        self._windows = windows
        self._zone = ZoneInfo(timezone)

    def spans(self, line: str, start_ms: int, end_ms: int) -> list[Span]:
        """The times within [start, end) that are held back, joined where they touch."""
        found = sorted(
            Span(max(span.start_ms, start_ms), min(span.end_ms, end_ms))
            for window in self._windows
            if window.covers(line)
            for span in self._each(window, start_ms, end_ms)
            if span.start_ms < end_ms and start_ms < span.end_ms
        )
        return list(_joined(found))

    def holds(self, line: str, ts_ms: int) -> bool:
        """True where the alerts of a line are held back at a moment."""
        return bool(self.spans(line, ts_ms, ts_ms + 1))

    def _each(self, window: Maintenance, start_ms: int, end_ms: int) -> Iterator[Span]:
        if not window.days:
            begin, end = window.once
            yield Span(self._first(begin), self._last(end))
            return
        begins, ends = window.minutes
        day = from_ms(start_ms).astimezone(self._zone).date() - 2 * _DAY
        behind = from_ms(end_ms).astimezone(self._zone).date() + _DAY
        while day <= behind:
            if DAYS[day.weekday()] in window.days:
                yield Span(self._first(_clock(day, begins)), self._last(_clock(day, ends)))
            day += _DAY

    def _first(self, wall: datetime) -> int:
        return self._moment(wall, fold=0)

    def _last(self, wall: datetime) -> int:
        return self._moment(wall, fold=1)

    def _moment(self, wall: datetime, *, fold: int) -> int:
        if wall.tzinfo is not None:
            return to_ms(wall)
        sure = [wall.replace(tzinfo=self._zone, fold=n).astimezone(UTC) for n in (0, 1)]
        if sure[0] <= sure[1]:
            return to_ms(sure[fold])
        # skipped: the first minute at which the clocks show as much
        moment = sure[1].replace(second=0, microsecond=0)
        while moment.astimezone(self._zone).replace(tzinfo=None) < wall:
            moment += _MINUTE
        return to_ms(moment)


def _minute(text: str) -> int:
    hours, minutes = time_of_day(text).split(":")
    return int(hours) * 60 + int(minutes)


def _clock(day: date, minutes: int) -> datetime:
    return datetime.combine(day, datetime.min.time()) + timedelta(minutes=minutes)


def _joined(spans: Iterable[Span]) -> Iterator[Span]:
    open_span: Span | None = None
    for span in spans:
        if open_span is None:
            open_span = span
        elif span.start_ms <= open_span.end_ms:
            open_span = Span(open_span.start_ms, max(open_span.end_ms, span.end_ms))
        else:
            yield open_span
            open_span = span
    if open_span is not None:
        yield open_span
