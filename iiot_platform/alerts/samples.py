"""Values of the rules that depend on the tables, at moments on a fixed grid of event time."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iiot_platform.alerts.lifecycle import STEP_MS, AlertKey, Samples
from iiot_platform.config.alerts import AlertSettings
from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_HOUR, MS_PER_S
from iiot_platform.core.names import SeriesKey

RATIO: Final = "anomaly_ratio"
SHIFT: Final = "off_reference"
OFFSET_MS: Final = MS_PER_HOUR
"""How far the clock of a device may be from the buffer's; rows further away say nothing of
whether it is silent."""
LINE_RULES: Final = ("late_data", "quarantine_rate", "capture_gap")
_MINUTE_S: Final = 60
_PLACES: Final = 6
Floats = NDArray[np.float64]


class Frames(NamedTuple):
    """A line's tables in intervals of one step, over a range of event time.

    Attributes:
        tested: per table with detectors its newest `anomaly_ratio` columns, `off_reference` and
            `run_id` per interval and series.
        summary: per interval the sums of `quarantined` and `lateness_mean_s`.
        gaps: per interval the sum of `count`.
        activity: per interval and series the sum of `readings` and the highest `lateness_max_ms`.
    """

    tested: Mapping[str, pd.DataFrame]
    summary: pd.DataFrame
    gaps: pd.DataFrame
    activity: pd.DataFrame


def ratio_columns(table: schema.Table) -> dict[str, str]:
    """The columns of anomaly ratios of a table, each with the quantity that it is about."""
    names = [name for name in table.names("field") if name.endswith(RATIO)]
    return {name: name.removesuffix(RATIO).removesuffix("_") for name in names}


TESTED: Final = tuple(table for table in schema.TABLES.values() if ratio_columns(table))


def samples(
    line: str, frames: Frames, moments: range, settings: AlertSettings, heard: Mapping[str, int]
) -> tuple[list[Samples], dict[str, int]]:
    """Values at the moments, and when each device was last heard behind the last of them.

    Args:
        line: the line.
        frames: hold at least the intervals that the rules look back on.
        moments: multiples of the step; each looks back on the intervals before it.
        settings: rules in force; a rule that is switched off gives nothing.
        heard: when each device was last heard before the first moment.
    """
    silence, now_heard = _silence(line, frames.activity, moments, settings, heard)
    found = [
        *_tested(line, frames.tested, moments, settings),
        *_line(line, frames, moments, settings),
        *silence,
    ]
    return found, now_heard


def _tested(
    line: str, frames: Mapping[str, pd.DataFrame], moments: range, settings: AlertSettings
) -> Iterator[Samples]:
    for table in TESTED:
        frame = frames.get(table.name)
        if frame is None or frame.empty:
            continue
        names = tuple(tag for tag in table.names("tag") if tag != schema.LINE.name)
        ratios = ratio_columns(table)
        quantities = np.array(list(ratios.values()), np.object_)
        for tags, rows in frame.groupby(list(names), sort=False):
            series = "/".join(map(str, tags))
            place, within = _places(rows["at_ms"].to_numpy(np.int64), moments)
            at = np.zeros(len(moments), np.int64)
            at[place] = rows["newest_ms"].to_numpy(np.int64)[within]
            runs = np.full(len(moments), "", np.object_)
            runs[place] = rows["run_id"].to_numpy(np.object_)[within]
            rule = settings.rule("anomaly_ratio", line, series)
            if rule.enabled:
                each = rows[list(ratios)].to_numpy(np.float64)[within]
                values = np.full(len(moments), np.nan)
                values[place] = each.max(axis=1)
                which = np.full(len(moments), "", np.object_)
                which[place] = quantities[each.argmax(axis=1)]
                key = AlertKey(line, "anomaly_ratio", series)
                yield Samples(key, rule, values, at, runs, which, table.name)
            rule = settings.rule("level_shift", line, series)
            if SHIFT in table.names("field") and rule.enabled:
                values = np.full(len(moments), np.nan)
                values[place] = rows[SHIFT].to_numpy(np.float64)[within]
                key = AlertKey(line, "level_shift", series)
                yield Samples(key, rule, values, at, runs, None, table.name)


def _places(at_ms: NDArray[np.int64], moments: range) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The moment that looks back on each interval, and which intervals have one."""
    place = (at_ms + STEP_MS - moments[0]) // STEP_MS
    within = (place >= 0) & (place < len(moments))
    return place[within], within


def _line(line: str, frames: Frames, moments: range, settings: AlertSettings) -> Iterator[Samples]:
    for name in LINE_RULES:
        rule = settings.rule(name, line)
        if not rule.enabled:
            continue
        width = max(round(rule.window_s * MS_PER_S / STEP_MS), 1)
        match name:
            case "late_data":
                total = _window(frames.summary, "lateness_mean_s", moments, width)
                count = _window(frames.summary, None, moments, width)
                values = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
            case "quarantine_rate":
                total = _window(frames.summary, "quarantined", moments, width)
                values = total * (_MINUTE_S * MS_PER_S / (width * STEP_MS))
            case _:
                values = _window(frames.gaps, "count", moments, width)
        # sums of the same values are the same, however the moments are cut
        yield Samples(AlertKey(line, name), rule, values.round(_PLACES))


def _window(frame: pd.DataFrame, column: str | None, moments: range, width: int) -> Floats:
    """The sum over the intervals that each moment looks back on; without a column their number."""
    dense = np.zeros(len(moments) + width - 1)
    place = (frame["at_ms"].to_numpy(np.int64) + STEP_MS - moments[0]) // STEP_MS + width - 1
    within = (place >= 0) & (place < len(dense))
    values = np.ones(len(frame)) if column is None else frame[column].to_numpy(np.float64)
    np.add.at(dense, place[within], values[within])
    sums: Floats = np.lib.stride_tricks.sliding_window_view(dense, width).sum(axis=1)
    return sums


def last_heard(activity: pd.DataFrame) -> pd.DataFrame:
    """Per row of activity the device and when it was heard, rounded down to the step.

    A device is heard at receive time: a clock that is wrong does not make it silent.
    """
    rows = activity[(activity["readings"] > 0) & (activity["lateness_max_ms"].abs() < OFFSET_MS)]
    keys = {text: _device(text) for text in rows["series"].unique()}
    received = rows["at_ms"] + STEP_MS + rows["lateness_max_ms"]
    return pd.DataFrame(
        {"device": rows["series"].map(keys), "heard_ms": received // STEP_MS * STEP_MS}
    )


def _device(text: str) -> str:
    key = SeriesKey.parse(text)
    return f"{key.machine}/{key.name}"


def _silence(
    line: str,
    activity: pd.DataFrame,
    moments: range,
    settings: AlertSettings,
    heard: Mapping[str, int],
) -> tuple[list[Samples], dict[str, int]]:
    rows = last_heard(activity)
    rows = rows[(rows["heard_ms"] >= moments[0]) & (rows["heard_ms"] <= moments[-1])]
    devices = {
        str(name): part["heard_ms"].to_numpy(np.int64) for name, part in rows.groupby("device")
    }
    found: list[Samples] = []
    now_heard: dict[str, int] = {}
    grid = np.arange(moments[0], moments[-1] + 1, STEP_MS, dtype=np.int64)
    for device in sorted(heard.keys() | devices.keys()):
        rule = settings.rule("silent_device", line, device)
        known = np.full(len(grid), heard.get(device, -1), np.int64)
        times = devices.get(device, np.zeros(0, np.int64))
        known[(times - moments[0]) // STEP_MS] = times
        known = np.maximum.accumulate(known)
        values = np.where(known < 0, np.nan, (grid - known) / MS_PER_S)
        forgotten = values > rule.window_s
        # what fires ends at the moment from which the device is no longer expected
        values[forgotten] = np.where(
            values[forgotten] - STEP_MS / MS_PER_S <= rule.window_s, 0.0, np.nan
        )
        if rule.enabled:
            found.append(Samples(AlertKey(line, "silent_device", device), rule, values))
        if not forgotten[-1]:
            now_heard[device] = int(known[-1])
    return found, now_heard
