"""The life of one alert: inactive, pending, firing, resolved; a pure function of its values."""

from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from iiot_platform.config.alerts import AlertRule
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.core.schema import SUMMARY_INTERVAL_MS

STEP_MS: Final = SUMMARY_INTERVAL_MS
"""Rules are evaluated at multiples of this: a moment looks back on the interval before it."""
Phase = Literal["pending", "firing"]
NO_DATA: Final = "no newer value"
SWITCHED_OFF: Final = "the rule was switched off"


class AlertKey(msgspec.Struct, frozen=True, order=True):
    """What an alert is about.

    Attributes:
        series: `<machine>/<name>[/<operation>]`, `<machine>/<name>` of a device, a source,
            the buffer, or `sink/<name>` of a database, or empty for the line itself.
    """

    line: str
    rule: str
    series: str = ""


class DropCount(msgspec.Struct, frozen=True):
    """Messages that one place has dropped.

    Attributes:
        count: of all times, as that place counts it; begins anew when that is started anew.
        dropped: since the last time that none was dropped for a while.
        at_ms: when the newest were seen, Unix ms.
    """

    count: int
    dropped: int = 0
    at_ms: int = 0


class Evidence(msgspec.Struct, frozen=True):
    """The row that a value was taken from.

    Attributes:
        ts_ms: its event time, Unix ms.
        run_id: run that computed it.
        table: where it stands.
        quantity: which tested column of the row it is, where a row has several.
    """

    ts_ms: int
    run_id: str
    table: str
    quantity: str = ""


class AlertState(msgspec.Struct, frozen=True):
    """An alert that is pending or firing; one that is neither has no state. Times in Unix ms.

    Attributes:
        since_ms: when its value exceeded the threshold.
        fired_ms: when it had done so for long enough.
        below_ms: since when the value has been below what clears it.
        value: last value, and when it was given.
        peak: highest value.
        evidence: the row behind the last value that exceeded the threshold.
        detail: what else was said of that value.
    """

    phase: Phase
    since_ms: int
    value: float
    value_ms: int
    peak: float
    fired_ms: int | None = None
    below_ms: int | None = None
    evidence: Evidence | None = None
    detail: str = ""


class Samples(NamedTuple):
    """Values of one alert at successive moments.

    Attributes:
        rule: settings in force.
        values: NaN where nothing new is known.
        rows: event time of the row behind each value; 0: none.
        runs: run of each row.
        quantities: which tested column of the row each value is.
        table: table of the rows.
        detail: what else is to be said of the values.
    """

    key: AlertKey
    rule: AlertRule
    values: NDArray[np.float64]
    rows: NDArray[np.int64] | None = None
    runs: NDArray[np.object_] | None = None
    quantities: NDArray[np.object_] | None = None
    table: str = ""
    detail: str = ""

    def evidence(self, index: int) -> Evidence | None:
        """The row behind a value."""
        if self.rows is None or self.runs is None or not self.rows[index]:
            return None
        quantity = "" if self.quantities is None else str(self.quantities[index])
        return Evidence(int(self.rows[index]), str(self.runs[index]), self.table, quantity)


class Transition(NamedTuple):
    """An alert fires or ends; `reason` says why it ended where that is not its value."""

    ts_ms: int
    key: AlertKey
    kind: Literal["firing", "resolved"]
    state: AlertState
    rule: AlertRule
    reason: str = ""


def follow(
    state: AlertState | None, samples: Samples, first_ms: int, step_ms: int = STEP_MS
) -> tuple[AlertState | None, list[Transition]]:
    """The state behind the last moment, and what happened on the way.

    A value begins an alert where it exceeds the threshold, and ends it where it stays below what
    clears it; in between the alert stays as it is. A moment without a value takes the one before,
    as long as the rule lets it count.

    Args:
        state: before the first moment; None: inactive.
        samples: the values.
        first_ms: the first moment, Unix ms.
        step_ms: from one moment to the next.
    """
    rule, values = samples.rule, samples.values
    above = np.flatnonzero(values > rule.threshold)
    found: list[Transition] = []
    i = 0
    while i < len(values):
        if state is None:
            place = int(np.searchsorted(above, i))
            if place == len(above):
                break
            i = int(above[place])
        ts = first_ms + i * step_ms
        after, reason = _after(state, samples, i, ts)
        if state is not None and after is None and state.phase == "firing":
            found.append(Transition(ts, samples.key, "resolved", state, rule, reason))
        if (
            after is not None
            and after.phase == "pending"
            and ts - after.since_ms >= rule.for_s * MS_PER_S
        ):
            after = msgspec.structs.replace(after, phase="firing", fired_ms=ts)
            found.append(Transition(ts, samples.key, "firing", after, rule))
        state = after
        i += 1
    return state, found


def _after(
    state: AlertState | None, samples: Samples, index: int, ts: int
) -> tuple[AlertState | None, str]:
    """The state behind one moment, whether it fires left out, and why the alert ended."""
    rule, value = samples.rule, float(samples.values[index])
    if state is None:
        begun = AlertState("pending", ts, value, ts, value, detail=samples.detail)
        return msgspec.structs.replace(begun, evidence=samples.evidence(index)), ""
    if np.isnan(value):
        if ts - state.value_ms >= rule.window_s * MS_PER_S:
            return None, NO_DATA
        value = state.value
    else:
        evidence = samples.evidence(index) if value > rule.threshold else None
        state = msgspec.structs.replace(
            state,
            value=value,
            value_ms=ts,
            peak=max(state.peak, value),
            evidence=evidence or state.evidence,
            detail=samples.detail if value > rule.threshold else state.detail,
        )
    if value >= rule.clear and not (rule.clear == 0 and value == 0):
        return msgspec.structs.replace(state, below_ms=None), ""
    below = ts if state.below_ms is None else state.below_ms
    if state.phase == "pending" or ts - below >= rule.clear_for_s * MS_PER_S:
        return None, ""
    return msgspec.structs.replace(state, below_ms=below), ""
