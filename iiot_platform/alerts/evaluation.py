"""All alerts of a line from one moment to a later one, and whom to tell: no clock, no files.

The state that is handed in and back holds all that later moments depend on, so that many short
steps give the same as one long one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from iiot_platform.alerts.lifecycle import (
    STEP_MS,
    SWITCHED_OFF,
    AlertKey,
    AlertState,
    DropCount,
    Evidence,
    Samples,
    Transition,
    follow,
)
from iiot_platform.config.alerts import AlertSettings, Severity
from iiot_platform.config.maintenance import Span

_RECENT: Final = 20


class Alert(msgspec.Struct, frozen=True):
    """An alert as it is told; times in Unix ms.

    Attributes:
        value: when it fired; where it has ended, the last one.
        held: True where a maintenance window had held it back.
    """

    key: AlertKey
    state: Literal["firing", "resolved"]
    since_ms: int
    fired_ms: int
    value: float
    peak: float
    threshold: float
    clear: float
    severity: Severity
    resolved_ms: int | None = None
    reason: str = ""
    evidence: Evidence | None = None
    detail: str = ""
    held: bool = False


class Entry(msgspec.Struct, frozen=True):
    """An alert that is pending or firing, with its key."""

    key: AlertKey
    state: AlertState


class LineState(msgspec.Struct, frozen=True):
    """What later moments of a line depend on.

    Attributes:
        at_ms: the last moment that was evaluated.
        alerts: those that are pending or firing.
        firing: what is told, or is to be told, of those that fire.
        told: those of which a person knows that they fire.
        owed: ends that were held back, of alerts that were told.
        heard: per device when it was last heard (a multiple of the step).
        recent: the newest that have ended.
        drops: per place that may drop messages what it has dropped.
    """

    at_ms: int
    alerts: tuple[Entry, ...] = ()
    firing: tuple[Alert, ...] = ()
    told: tuple[AlertKey, ...] = ()
    owed: tuple[Alert, ...] = ()
    heard: dict[str, int] = {}
    recent: tuple[Alert, ...] = ()
    drops: dict[str, DropCount] = {}


class Advance(NamedTuple):
    """What a step gives.

    Attributes:
        state: behind the step.
        transitions: what fired and ended, in order of time, held back or not.
        told: what is to be told, in order, each with the moment at which it is.
    """

    state: LineState
    transitions: list[Transition]
    told: list[tuple[int, Alert]]


def ticks_between(start_ms: int, end_ms: int) -> range:
    """The moments in (start, end] at which rules are evaluated."""
    first = (start_ms // STEP_MS + 1) * STEP_MS
    return range(first, end_ms // STEP_MS * STEP_MS + 1, STEP_MS)


def advance(
    state: LineState,
    samples: Iterable[Samples],
    moments: range,
    held: Sequence[Span],
    settings: AlertSettings,
    heard: Mapping[str, int] | None = None,
    drops: Mapping[str, DropCount] | None = None,
) -> Advance:
    """Evaluates every alert at successive moments.

    Args:
        state: behind the moment before.
        samples: values of alerts at the moments; an alert without any has no new value.
        moments: moments, oldest first; all behind the state's.
        held: maintenance windows, in order, from before the state's moment on.
        settings: rules in force, for alerts that have no samples.
        heard: when devices were last heard, behind the last moment.
        drops: what was dropped, up to the last moment.
    """
    if not moments:
        return Advance(state, [], [])
    before = {entry.key: entry.state for entry in state.alerts}
    given = {one.key: one for one in samples}
    transitions: list[Transition] = []
    after: dict[AlertKey, AlertState] = {}
    for key in given.keys() | before.keys():
        one = given.get(key) or _nothing_new(key, len(moments), settings)
        known = before.get(key)
        if not one.rule.enabled:
            if known is not None and known.phase == "firing":
                gone = Transition(moments[0], key, "resolved", known, one.rule, SWITCHED_OFF)
                transitions.append(gone)
            continue
        new, happened = follow(known, one, moments[0], moments.step)
        transitions += happened
        if new is not None:
            after[key] = new
    transitions.sort(key=lambda one: (one.ts_ms, one.key))
    teller = _Teller(state)
    teller.follow(transitions, moments, held)
    ended = [_alert(one) for one in transitions if one.kind == "resolved"]
    return Advance(
        LineState(
            at_ms=moments[-1],
            alerts=tuple(Entry(key, after[key]) for key in sorted(after)),
            firing=tuple(teller.firing[key] for key in sorted(teller.firing)),
            told=tuple(sorted(teller.known)),
            owed=tuple(teller.owed),
            heard=dict(state.heard if heard is None else heard),
            recent=(*state.recent, *ended)[-_RECENT:],
            drops=dict(state.drops if drops is None else drops),
        ),
        transitions,
        teller.told,
    )


def _nothing_new(key: AlertKey, count: int, settings: AlertSettings) -> Samples:
    return Samples(key, settings.rule(key.rule, key.line, key.series), np.full(count, np.nan))


def _alert(transition: Transition) -> Alert:
    state, rule = transition.state, transition.rule
    resolved = transition.kind == "resolved"
    return Alert(
        key=transition.key,
        state=transition.kind,
        since_ms=state.since_ms,
        fired_ms=state.since_ms if state.fired_ms is None else state.fired_ms,
        value=state.value,
        peak=state.peak,
        threshold=rule.threshold,
        clear=rule.clear,
        severity=rule.severity,
        resolved_ms=transition.ts_ms if resolved else None,
        reason=transition.reason,
        evidence=state.evidence,
        detail=state.detail,
    )


class _Teller:
    """Decides what is told: held back in maintenance windows, made up for at their end."""

    def __init__(self, state: LineState) -> None:
        self.firing = {alert.key: alert for alert in state.firing}
        self.known = set(state.told)
        self.owed = list(state.owed)
        self.told: list[tuple[int, Alert]] = []
        self._since_ms = state.at_ms

    def follow(
        self, transitions: Sequence[Transition], moments: range, held: Sequence[Span]
    ) -> None:
        releases = {_at_or_behind(span.end_ms, moments) for span in held}
        releases = {ts for ts in releases if self._since_ms < ts <= moments[-1]}
        by_moment: dict[int, list[Transition]] = {ts: [] for ts in releases | {moments[-1]}}
        for one in transitions:
            by_moment.setdefault(one.ts_ms, []).append(one)
        for ts in sorted(by_moment):
            free = not any(span.start_ms <= ts < span.end_ms for span in held)
            for one in by_moment[ts]:
                self._take(one, free=free)
            if free:
                self._make_up(ts)

    def _take(self, one: Transition, *, free: bool) -> None:
        alert = _alert(one)
        if one.kind == "firing":
            self.firing[one.key] = alert
            if free:
                self._tell(one.ts_ms, alert)
            return
        self.firing.pop(one.key, None)
        if one.key not in self.known:
            return
        self.known.discard(one.key)
        if free:
            self.told.append((one.ts_ms, alert))
        else:
            self.owed.append(alert)

    def _make_up(self, ts: int) -> None:
        for alert in self.owed:
            self.told.append((ts, msgspec.structs.replace(alert, held=True)))
        self.owed.clear()
        for key in sorted(self.firing.keys() - self.known):
            self._tell(ts, msgspec.structs.replace(self.firing[key], held=True))

    def _tell(self, ts: int, alert: Alert) -> None:
        self.known.add(alert.key)
        self.told.append((ts, alert))


def _at_or_behind(ts_ms: int, moments: range) -> int:
    """The first moment that is not before a time; one behind the last where none is."""
    steps = -(-(ts_ms - moments[0]) // moments.step)
    return moments[0] + steps * moments.step
