import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.alerts.evaluation import Advance, LineState, advance, ticks_between
from iiot_platform.alerts.lifecycle import SWITCHED_OFF, AlertKey, Samples
from iiot_platform.config.alerts import AlertSettings
from iiot_platform.config.maintenance import Span

RULES = {"anomaly_ratio": {"for_s": 10, "clear_for_s": 20, "window_s": 50}}
SETTINGS = AlertSettings.model_validate({"rules": RULES})
KEYS = [AlertKey("line1", "anomaly_ratio", f"press/{name}") for name in "ab"]
Told = list[tuple[int, str, str, bool]]


def step(
    state: LineState,
    values: Sequence[Sequence[float]],
    held: Sequence[Span] = (),
    settings: AlertSettings = SETTINGS,
) -> Advance:
    """Values of the keys at the moments behind the state, 10 s apart."""
    moments = ticks_between(state.at_ms, state.at_ms + len(values[0]) * 10_000)
    given_samples = [
        Samples(key, settings.rule(key.rule, key.line, key.series), np.array(one, float))
        for key, one in zip(KEYS, values, strict=False)
    ]
    return advance(state, given_samples, moments, held, settings)


def told(found: Advance) -> Told:
    return [(at // 1_000, a.key.series[-1], a.state, a.held) for at, a in found.told]


ON, OFF = 0.9, 0.0


def test_moments_are_multiples_of_the_step() -> None:
    assert list(ticks_between(0, 30_000)) == [10_000, 20_000, 30_000]
    assert list(ticks_between(5_000, 29_999)) == [10_000, 20_000]
    assert list(ticks_between(30_000, 30_000)) == []


def test_what_fires_and_ends_is_told() -> None:
    found = step(LineState(0), [[OFF, ON, ON, ON, OFF, OFF, OFF, OFF]])
    assert told(found) == [(30, "a", "firing", False), (70, "a", "resolved", False)]
    assert found.state.firing == found.state.told == found.state.alerts == ()
    assert [alert.resolved_ms for alert in found.state.recent] == [70_000]


def test_maintenance_holds_back_and_what_still_fires_is_told_at_its_end() -> None:
    held = [Span(25_000, 65_000)]
    found = step(LineState(0), [[OFF, ON, ON, ON, ON, ON, ON, ON]], held)
    assert told(found) == [(70, "a", "firing", True)]
    assert [one.ts_ms for one in found.transitions] == [30_000]


def test_what_begins_and_ends_in_maintenance_is_not_told() -> None:
    found = step(LineState(0), [[ON, ON, OFF, OFF, OFF, OFF, OFF]], [Span(5_000, 65_000)])
    assert [one.kind for one in found.transitions] == ["firing", "resolved"]
    assert told(found) == []


def test_an_end_in_maintenance_is_told_behind_it() -> None:
    found = step(LineState(0), [[ON, ON, OFF, OFF, OFF, OFF, OFF]], [Span(25_000, 65_000)])
    assert told(found) == [(20, "a", "firing", False), (70, "a", "resolved", True)]
    assert told(step(found.state, [[OFF, OFF]])) == []
    longer = step(LineState(0), [[ON, ON, *[OFF] * 8]], [Span(25_000, 65_000)])
    assert longer.told == found.told


def test_ending_and_firing_again_in_maintenance_tells_both_behind_it() -> None:
    held = [Span(25_000, 95_000)]
    found = step(LineState(0), [[ON, ON, OFF, OFF, OFF, ON, ON, ON, ON, ON]], held)
    assert told(found) == [
        (20, "a", "firing", False),
        (100, "a", "resolved", True),
        (100, "a", "firing", True),
    ]


def test_a_window_that_vanishes_from_the_plant_file_still_lets_go() -> None:
    state = step(LineState(0), [[ON, ON]], [Span(0, 1_000_000)]).state
    assert told(step(state, [[ON]])) == [(30, "a", "firing", True)]


def test_an_alert_whose_rule_is_switched_off_ends() -> None:
    state = step(LineState(0), [[ON, ON]]).state
    off = AlertSettings.model_validate({"rules": {"anomaly_ratio": {"enabled": False}}})
    found = advance(state, [], ticks_between(20_000, 30_000), [], off)
    assert [(one.kind, one.reason) for one in found.transitions] == [("resolved", SWITCHED_OFF)]
    assert found.state.alerts == ()


def test_an_alert_without_newer_values_ends() -> None:
    state = step(LineState(0), [[ON, ON]]).state
    found = advance(state, [], ticks_between(20_000, 100_000), [], SETTINGS)
    assert told(found) == [(70, "a", "resolved", False)]


VALUES = st.lists(st.sampled_from([ON, 0.15, OFF, float("nan")]), min_size=40, max_size=40)
SPANS = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 150)), max_size=3)


@given(st.tuples(VALUES, VALUES), SPANS, st.lists(st.integers(1, 39), max_size=8))
def test_steps_of_any_length_tell_the_same_as_one(
    values: tuple[list[float], list[float]], spans: list[tuple[int, int]], cuts: list[int]
) -> None:
    held: list[Span] = []
    for begin, seconds in sorted(spans):
        if not held or begin * 1_000 > held[-1].end_ms:
            held.append(Span(begin * 1_000, (begin + seconds) * 1_000))
    whole = step(LineState(0), values, held)
    state, found, happened = LineState(0), [], []
    edges = sorted({0, *cuts, 40})
    for lo, hi in itertools.pairwise(edges):
        one = step(state, [part[lo:hi] for part in values], held)
        state, found, happened = one.state, found + one.told, happened + one.transitions
    assert found == whole.told
    assert happened == whole.transitions
    assert state == whole.state
