import itertools

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.alerts.evaluation import ticks_between
from iiot_platform.alerts.lifecycle import Samples
from iiot_platform.alerts.samples import Frames, samples
from iiot_platform.config.alerts import AlertSettings
from iiot_platform.core import schema
from tests.servers.effort import BROAD

LINE = "line1"
RULES = {
    "quarantine_rate": {"window_s": 60},
    "late_data": {"window_s": 60},
    "capture_gap": {"window_s": 60},
    "silent_device": {"window_s": 100},
}
SETTINGS = AlertSettings.model_validate({"rules": RULES})


def frame(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})


def frames(
    tested: dict[str, pd.DataFrame] | None = None,
    summary: list[tuple[int, float, float]] | None = None,
    gaps: list[tuple[int, float]] | None = None,
    activity: list[tuple[int, str, float, int]] | None = None,
) -> Frames:
    return Frames(
        tested or {},
        pd.DataFrame(summary or [], columns=["at_ms", "quarantined", "lateness_mean_s"]).astype(
            {"at_ms": "int64"}
        ),
        pd.DataFrame(gaps or [], columns=["at_ms", "count"]).astype({"at_ms": "int64"}),
        pd.DataFrame(
            activity or [], columns=["at_ms", "series", "readings", "lateness_max_ms"]
        ).astype({"at_ms": "int64", "lateness_max_ms": "int64", "readings": "float64"}),
    )


def values(
    found: Frames, rule: str, until_s: int, heard: dict[str, int] | None = None
) -> dict[str, list[float]]:
    """Per series the values at every moment up to a second."""
    made, _ = samples(LINE, found, ticks_between(0, until_s * 1_000), SETTINGS, heard or {})
    return {
        one.key.series: [None if np.isnan(v) else v for v in one.values.tolist()]  # type: ignore[misc]  # noqa: PD011 - NaN is not equal to itself; no frame
        for one in made
        if one.key.rule == rule
    }


def test_a_moment_looks_back_on_the_interval_before_it() -> None:
    rows = frame(
        at_ms=[0, 20_000],
        machine_name=["press", "press"],
        sensor_name=["oil", "oil"],
        newest_ms=[9_000, 21_000],
        anomaly_ratio=[0.1, 0.3],
        off_reference=[0, 1],
        run_id=["a", "b"],
    )
    found = frames(tested={schema.SIGNAL_ANOMALIES.name: rows})
    assert values(found, "anomaly_ratio", 40) == {"press/oil": [0.1, None, 0.3, None]}
    assert values(found, "level_shift", 40) == {"press/oil": [0.0, None, 1.0, None]}
    made, _ = samples(LINE, found, ticks_between(0, 40_000), SETTINGS, {})
    evidence = made[0].evidence(2)
    assert evidence is not None
    assert (evidence.ts_ms, evidence.run_id, evidence.table) == (21_000, "b", "signal_anomalies")
    assert made[0].evidence(1) is None


def test_a_series_is_judged_by_the_worst_of_its_quantities() -> None:
    columns = {
        f"el_{what}_ph{n}_anomaly_ratio": [0.0]
        for what in ("current_integral", "inrush_current")
        for n in schema.PHASES
    }
    columns["el_inrush_current_ph2_anomaly_ratio"] = [0.4]
    rows = frame(
        at_ms=[0],
        machine_name=["press"],
        device_name=["drive"],
        newest_ms=[1_000],
        run_id=["a"],
        **columns,  # type: ignore[arg-type]  # lists of numbers
    )
    found = frames(tested={schema.ELECTRICAL_CYCLES.name: rows})
    assert values(found, "anomaly_ratio", 10) == {"press/drive": [0.4]}
    made, _ = samples(LINE, found, ticks_between(0, 10_000), SETTINGS, {})
    evidence = made[0].evidence(0)
    assert evidence is not None
    assert evidence.quantity == "el_inrush_current_ph2"


def test_rules_of_the_line_take_their_window_together() -> None:
    found = frames(
        summary=[(0, 6.0, 2.0), (10_000, 0.0, 4.0), (60_000, 3.0, 9.0)], gaps=[(10_000, 2.0)]
    )
    assert values(found, "quarantine_rate", 80)[""] == [6, 6, 6, 6, 6, 6, 3, 3]
    assert values(found, "late_data", 80)[""] == [2, 3, 3, 3, 3, 3, 6.5, 9]
    assert values(found, "capture_gap", 80)[""] == [0, 2, 2, 2, 2, 2, 2, 0]
    assert values(frames(), "late_data", 20)[""] == [None, None]


def test_silence_counts_from_the_receive_time() -> None:
    oil, water = "signal/press/oil/", "valve/press/v1/ExtendTime"
    found = frames(
        activity=[
            (0, oil, 10.0, 20),
            (0, water, 0.0, 20),  # no reading
            (-600_000, water, 1.0, 610_000),  # a clock that is ten minutes slow
        ]
    )
    assert values(found, "silent_device", 40) == {
        "press/oil": [0, 10, 20, 30],
        "press/v1": [None, 0, 10, 20],
    }


def test_a_device_that_is_silent_for_too_long_is_no_longer_expected() -> None:
    heard = {"press/oil": 0}
    assert values(frames(), "silent_device", 120, heard)["press/oil"][8:] == [90, 100, 0, None]
    made = samples(LINE, frames(), ticks_between(0, 100_000), SETTINGS, heard)
    assert made[1] == heard
    assert samples(LINE, frames(), ticks_between(0, 110_000), SETTINGS, heard)[1] == {}


def by_moment(made: list[Samples], moments: range) -> dict[tuple[object, int], float]:
    return {
        (one.key, ts): float(value)
        for one in made
        for ts, value in zip(moments, one.values.tolist(), strict=True)  # noqa: PD011 - no frame
        if not np.isnan(value)
    }


ROWS = st.lists(st.tuples(st.integers(0, 39), st.floats(0, 9), st.floats(0, 9)), max_size=12)


@BROAD
@given(ROWS, st.lists(st.integers(1, 39), max_size=3))
def test_cuts_change_no_value(rows: list[tuple[int, float, float]], cuts: list[int]) -> None:
    unique = {at * 10_000: (one, two) for at, one, two in rows}
    found = frames(
        summary=[(at, *both) for at, both in sorted(unique.items())],
        activity=[(at, "signal/press/oil/", 1.0, 20) for at in sorted(unique)],
    )
    moments = ticks_between(0, 400_000)
    made, whole_heard = samples(LINE, found, moments, SETTINGS, {})
    whole = by_moment(made, moments)
    parts: dict[tuple[object, int], float] = {}
    heard: dict[str, int] = {}
    for lo, hi in itertools.pairwise(sorted({0, *cuts, 40})):
        moments = ticks_between(lo * 10_000, hi * 10_000)
        made, heard = samples(LINE, found, moments, SETTINGS, heard)
        parts |= by_moment(made, moments)
    assert parts == whole
    assert heard == whole_heard
