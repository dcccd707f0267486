"""Activity and summary: known answers, and sums that no cut and no order can change."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.activity import (
    activity_of,
    data_quality,
    interval_of,
    merge,
    outcome_activity,
    quarantine_activity,
    readings_activity,
    summarise,
)
from iiot_platform.engine.series.outcome import Outcome, RunningTime
from tests.servers.effort import BROAD

A, STATE = SeriesKey("signal", "press", "a"), SeriesKey("state", "press", "mode")
TEN_S = 10_000
HOUR_MS = 3_600_000


def ints(*values: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array(values, np.int64)


def received(key: SeriesKey, ts: list[int], lateness: list[int]) -> pa.Table:
    one = np.zeros(len(ts), np.int32)
    return readings_activity([key], one, ints(*ts), ints(*lateness), ints(*lateness) > HOUR_MS)


def activity(ts: list[int], lateness: list[int], anomalies: list[int]) -> pa.Table:
    outcome = Outcome(b"", (), ints(*anomalies))
    return pa.concat_tables(
        [received(A, ts, lateness), activity_of(outcome_activity(A, outcome, None))]
    )


def test_intervals_begin_at_whole_ten_seconds() -> None:
    assert interval_of(ints(0, 9_999, 10_000, -1)).tolist() == [0, 0, TEN_S, -TEN_S]


def test_a_summary_with_known_answers() -> None:
    running = RunningTime(ints(0, TEN_S), ints(2_500, 0), ints(5_000, TEN_S))
    found = merge(
        [
            activity([1, 2, TEN_S], [20, 40, -5], [2]),
            received(STATE, [5], [90]),
            activity_of(outcome_activity(STATE, Outcome(b"", (), changes=ints(5)), running)),
            quarantine_activity("not_json", ints(3, 4, 3 * TEN_S)),
        ]
    )
    rows = summarise("line1", found).drop_columns(["ts", "line_name"]).to_pylist()
    zero = dict.fromkeys(rows[0], 0)
    assert rows == [
        {
            "readings": 3,
            "devices": 2,
            "lateness_mean_s": 0.05,
            "lateness_max_s": 0.09,
            "anomalies": 1,
            "quarantined": 2,
            "state_changes": 1,
            "running_share": 0.5,
            "known_share": 0.5,
            "missing_s": 0.0,
        },
        zero
        | {
            "readings": 1,
            "devices": 1,
            "lateness_mean_s": -0.005,
            "lateness_max_s": -0.005,
            "known_share": 1.0,
            "missing_s": 0.0,
        },
        zero | {"quarantined": 1},
    ]


def test_data_quality_counts_by_reason_and_late_rows() -> None:
    found = merge(
        [
            activity([1, 2, TEN_S], [HOUR_MS + 1, 40, HOUR_MS + 1], []),
            quarantine_activity("not_json", ints(3, 4)),
            quarantine_activity("too_old", ints(3)),
        ]
    )
    rows = data_quality("line1", found).drop_columns(["line_name"]).to_pylist()
    assert [(row["ts"].timestamp(), row["reason"], row["count"]) for row in rows] == [
        (0.0, "late", 1),
        (0.0, "not_json", 2),
        (0.0, "too_old", 1),
        (10.0, "late", 1),
    ]


def test_nothing_is_summed_to_nothing() -> None:
    nothing = merge([])
    assert len(nothing) == 0
    assert len(summarise("line1", nothing)) == 0


ROWS = st.lists(
    st.tuples(st.integers(0, 50_000), st.integers(-300_000, 10**9), st.booleans()),
    min_size=1,
    max_size=30,
)


@BROAD
@given(rows=ROWS, cut=st.integers(0, 30))
def test_cuts_and_order_change_no_sum(rows: list[tuple[int, int, bool]], cut: int) -> None:
    def of(some: list[tuple[int, int, bool]]) -> pa.Table:
        if not some:
            return activity_of(())
        ts, lateness, flags = zip(*some, strict=True)
        found = [at for at, flag in zip(ts, flags, strict=True) if flag]
        return activity(list(ts), list(lateness), found)

    whole = merge([of(rows)])
    assert merge([of(rows[cut:]), of(rows[:cut])]).equals(whole)
    assert merge([merge([of(rows[:cut])]), merge([of(rows[cut:])])]).equals(whole)
