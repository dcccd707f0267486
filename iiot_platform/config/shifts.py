"""Shifts of a plant: when each begins, in the plant's own time."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Final, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

from iiot_platform.core.clock import from_ms
from iiot_platform.core.parameters import Parameters

_CLOCK_FORMAT: Final = "%H:%M"


def time_of_day(text: str) -> str:
    """A time of day in one spelling.

    Raises:
        ValueError: the text is none.
    """
    try:
        return datetime.strptime(text.strip(), _CLOCK_FORMAT).strftime(_CLOCK_FORMAT)  # noqa: DTZ007 - a time of day has no date to place in a zone
    except ValueError as error:
        raise ValueError("should be a time of day such as '06:00', in quotes") from error


class Shift(Parameters):
    """A shift; it ends where the next one begins."""

    name: str
    start: Annotated[str, AfterValidator(time_of_day)]

    @property
    def minute(self) -> int:
        """Its start, in minutes of the day."""
        hours, minutes = self.start.split(":")
        return int(hours) * 60 + int(minutes)


DEFAULT_SHIFTS: Final = (
    Shift(name="early", start="06:00"),
    Shift(name="late", start="14:00"),
    Shift(name="night", start="22:00"),
)


def distinct(shifts: tuple[Shift, ...]) -> tuple[Shift, ...]:
    """The shifts in order of their start.

    Raises:
        ValueError: there is none, or two have one name or one start.
    """
    if not shifts:
        raise ValueError("should have at least one entry")
    for what in ("name", "start"):
        seen: set[str] = set()
        for shift in shifts:
            value = getattr(shift, what)
            if value in seen:
                raise ValueError(f"should have each {what} once; '{value}' stands twice")
            seen.add(value)
    return tuple(sorted(shifts, key=lambda shift: shift.minute))


class ShiftDay(NamedTuple):
    """One shift of one day: the day is that on which the shift begins."""

    day: date
    place: int
    name: str


class ShiftCalendar:
    """Tells to which shift a moment belongs.

    Args:
        shifts: in order of their start.
        timezone: the zone whose clocks the starts are read from.
    """

    def __init__(self, shifts: Sequence[Shift], timezone: str) -> None:
        self._shifts = shifts
        self._zone = ZoneInfo(timezone)

    def shift_at(self, ts_ms: int) -> ShiftDay:
        """The shift at a moment (Unix ms); before the day's first, yesterday's last one runs."""
        local = from_ms(ts_ms).astimezone(self._zone)
        minute = local.hour * 60 + local.minute
        place = sum(shift.minute <= minute for shift in self._shifts) - 1
        day = local.date()
        if place < 0:
            place, day = len(self._shifts) - 1, day - timedelta(days=1)
        return ShiftDay(day, place, self._shifts[place].name)
