import math

import numpy as np

from iiot_platform.alerts.lifecycle import NO_DATA, AlertKey, AlertState, Samples, follow
from iiot_platform.config.alerts import AlertRule

KEY = AlertKey("line1", "anomaly_ratio", "press/t")
RULE = AlertRule(
    threshold=0.5, clear=0.2, for_s=20, clear_for_s=30, window_s=60, severity="warning"
)
NAN = math.nan


def told(values: list[float], rule: AlertRule = RULE) -> list[tuple[int, str]]:
    """What happens, at seconds behind the first value, one value each 10 s."""
    _, found = follow(None, Samples(KEY, rule, np.array(values)), 0)
    return [(one.ts_ms // 1_000, one.kind) for one in found]


def test_it_fires_once_it_has_lasted() -> None:
    assert told([0.6, 0.6]) == []
    assert told([0.6, 0.6, 0.6]) == [(20, "firing")]
    assert told([0.6, 0.6, 0.1, 0.6, 0.6]) == []


def test_a_value_at_the_threshold_does_not_begin_it() -> None:
    assert told([0.5] * 9) == []


def test_between_clear_and_threshold_it_stays_as_it_is() -> None:
    assert told([0.3] * 9) == []
    assert told([0.6, 0.3, 0.3, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2]) == [(20, "firing")]


def test_it_ends_once_it_has_stayed_below() -> None:
    assert told([0.6] * 3 + [0.1] * 3) == [(20, "firing")]
    assert told([0.6] * 3 + [0.1] * 4) == [(20, "firing"), (60, "resolved")]


def test_flapping_below_does_not_end_it() -> None:
    assert told([0.6] * 3 + [0.1, 0.1, 0.1, 0.6] * 5) == [(20, "firing")]


def test_without_durations_every_change_is_told() -> None:
    sharp = RULE.model_copy(update={"for_s": 0, "clear_for_s": 0})
    assert told([0.6, 0.1, 0.6], sharp) == [(0, "firing"), (10, "resolved"), (20, "firing")]


def test_a_value_counts_until_it_is_too_old() -> None:
    assert told([0.6, NAN, NAN]) == [(20, "firing")]
    _, found = follow(None, Samples(KEY, RULE, np.array([0.6] + [NAN] * 6)), 0)
    assert [(one.ts_ms, one.kind, one.reason) for one in found] == [
        (20_000, "firing", ""),
        (60_000, "resolved", NO_DATA),
    ]
    assert told([NAN] * 9) == []


def test_a_threshold_of_nothing_ends_at_zero() -> None:
    any_at_all = RULE.model_copy(
        update={"threshold": 0.0, "clear": 0.0, "for_s": 0, "clear_for_s": 0}
    )
    assert told([0.0, 1.0, 0.0], any_at_all) == [(10, "firing"), (20, "resolved")]


def test_peak_and_the_row_behind_it_are_kept() -> None:
    rows = np.array([5_000, 15_000, 25_000, 35_000])
    runs = np.array(["a", "b", "c", "d"], np.object_)
    values = np.array([0.6, 0.9, 0.7, 0.3])
    state, found = follow(None, Samples(KEY, RULE, values, rows, runs, table="signal_anomalies"), 0)
    assert isinstance(state, AlertState)
    assert (state.since_ms, state.fired_ms, state.peak, state.value) == (0, 20_000, 0.9, 0.3)
    assert state.evidence is not None
    assert (state.evidence.ts_ms, state.evidence.run_id) == (25_000, "c")
    assert found[0].state.value == 0.7
