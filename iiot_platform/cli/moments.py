"""Times as people write them on a command line."""

import re
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from iiot_platform.core.clock import MS_PER_HOUR, hour_of, to_ms
from iiot_platform.core.errors import ConfigError

_AGO: Final = re.compile(r"-\s*(\d+(?:\.\d+)?)\s*(s|min|m|h|d)")
_SECONDS: Final = {"s": 1, "min": 60, "m": 60, "h": 3_600, "d": 86_400}
_TIME_OF_DAY: Final = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?")


class MomentError(ConfigError):
    """A time on the command line can not be understood."""

    def __init__(self, text: str, problem: str) -> None:
        super().__init__(
            f"'{text}' {problem}; write a time such as 2026-11-22T08:00, 2026-11-22T08:00Z,"
            " 2026-11-22, 08:00, -2h or now"
        )


def moment_ms(text: str, *, timezone: str, now_ms: int) -> int:
    """The moment that a text names, in Unix milliseconds.

    Args:
        text: ISO 8601 with or without its zone, a date (its first moment), a time of today
            (`08:00`), `now`, or how long ago (`-30min`, `-2h`, `-1d`).
        timezone: IANA name of the zone of a time that has none of its own: the plant's.
        now_ms: the current time, Unix ms.

    Raises:
        MomentError: the text is no time, or one that the zone's clocks skip.
    """
    given, zone = text.strip(), ZoneInfo(timezone)
    if given.lower() == "now":
        return now_ms
    ago = _AGO.fullmatch(given)
    if ago is not None:
        return now_ms - round(float(ago[1]) * _SECONDS[ago[2]] * 1_000)
    now = datetime.fromtimestamp(now_ms / 1_000, zone)
    if _TIME_OF_DAY.fullmatch(given):
        given = f"{now:%Y-%m-%d}T{given.zfill(len(given) + (given.index(':') == 1))}"
    try:
        moment = datetime.fromisoformat(given)
    except ValueError as error:
        raise MomentError(text, "is no time") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
        back = moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None)
        if back != moment.replace(tzinfo=None):
            raise MomentError(text, f"does not exist in {timezone}: the clocks skip it")
    return to_ms(moment)


def hours_of(start: str, end: str | None, *, timezone: str, now_ms: int) -> range:
    """The hours (UTC) that hold any moment of [start, end); without an end: up to now.

    Raises:
        MomentError: a time can not be understood, or the end is not behind the start.
    """
    first = moment_ms(start, timezone=timezone, now_ms=now_ms)
    behind = now_ms if end is None else moment_ms(end, timezone=timezone, now_ms=now_ms)
    if behind <= first:
        raise MomentError(end or "now", f"is not behind '{start}'")
    return range(hour_of(first), hour_of(behind + MS_PER_HOUR - 1))
