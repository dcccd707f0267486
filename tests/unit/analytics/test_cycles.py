"""Cycles: where they begin and end, what is measured, and that batches do not show."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.analytics import cycles
from iiot_platform.analytics.cycles import Cycle, OpenCycle
from iiot_platform.core.errors import AnalysisError
from iiot_platform.core.parameters import CycleParameters
from iiot_platform.core.quality import Status
from tests.reference.naive_cycles import NaiveCycles

DEFAULT = CycleParameters()


def readings(text: str, *, step_ms: int = 100) -> dict[str, Any]:
    """One letter a reading: R running, S stopped, P stopped with a SynchPulse."""
    letters = np.array(list(text))
    return {
        "ts": np.arange(len(text)) * step_ms,
        "running": letters == "R",
        "pulse": letters == "P",
        "current": np.full((len(text), 3), 10.0),
        "good": np.ones(len(text), bool),
    }


def closed(
    parameters: CycleParameters = DEFAULT, *, parity: bool = False, **columns: Any
) -> list[Cycle]:
    return cycles.update(OpenCycle(), **columns, parameters=parameters, parity=parity)[0]


def one_cycle(
    ts: Any, current: Any, parameters: CycleParameters = DEFAULT, **options: Any
) -> Cycle:
    """A run with these samples of one phase, closed 100 ms after the last."""
    n = len(ts)
    columns = readings("R" * n + "S")
    columns["ts"] = np.append(ts, ts[-1] + options.pop("closed_after", 100))
    columns["current"] = np.append(current, 0.0)[:, None] * np.ones(3)
    (cycle,) = closed(parameters, **options, **columns)
    return cycle


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SSRRRS", [(500, 3)]),
        ("RRRSSRRS", [(300, 3), (700, 2)]),
        ("RRRPRRS", [(600, 2)]),
        ("RRPSRS", [(500, 1)]),
        ("PPRRRS", [(500, 3)]),
        ("RRR", []),
        ("SSSS", []),
    ],
)
def test_where_cycles_begin_and_end(text: str, expected: list[tuple[int, int]]) -> None:
    assert [(cycle.ts, cycle.samples) for cycle in closed(**readings(text))] == expected


def test_a_pulse_while_running_is_a_sample_like_any_other() -> None:
    columns = readings("RRRRS")
    columns["pulse"] = np.array([False, True, True, False, False])
    assert [cycle.samples for cycle in closed(**columns)] == [4]


@pytest.mark.parametrize("integral", ["trapezoid", "hold"])
def test_constant_current_on_irregular_stamps(integral: Any) -> None:
    ts = np.unique(np.append(np.random.default_rng(1).integers(0, 20_000, 150), [0, 20_000]))
    parameters = CycleParameters(integral=integral)
    cycle = one_cycle(ts, np.full(len(ts), 10.0), parameters, closed_after=0)
    assert cycle.integral == pytest.approx([200.0] * 3, rel=1e-12)
    assert cycle.cycle_s == 20.0
    assert cycle.samples == len(ts)
    assert cycle.max_gap_s == np.diff(ts).max() / 1000


def test_the_integral_follows_the_method() -> None:
    ts, current = np.array([0, 1_000, 3_000]), np.array([2.0, 4.0, 0.0])
    held = CycleParameters(integral="hold")
    assert one_cycle(ts, current).integral[0] == 3.0 + 4.0
    assert one_cycle(ts, current, held).integral[0] == 2.0 + 8.0
    assert one_cycle(ts, current + 1, held, closed_after=500).integral[0] == 3.0 + 10.0 + 0.5
    assert one_cycle(ts, current, held, parity=True).integral[0] == 6.0


def test_a_held_mean_is_taken_over_time() -> None:
    columns = readings("RRS")
    columns["ts"] = np.array([0, 9_000, 10_000])
    columns["current"] = np.array([[10.0, 10, 10], [20.0, 10, 10], [0, 0, 0]])
    (held,) = closed(CycleParameters(integral="hold"), **columns)
    assert held.mean_current.tolist() == [11.0, 10.0, 10.0]
    (sampled,) = closed(**columns)
    assert sampled.mean_current.tolist() == [15.0, 10.0, 10.0]


def test_unbalance_of_a_lost_phase() -> None:
    columns = readings("RRRS")
    columns["current"] = np.tile([0.0, 10.0, 10.0], (4, 1))
    (cycle,) = closed(**columns)
    assert cycle.unbalance == pytest.approx(100.0, rel=1e-12)
    assert cycle.asymmetry == pytest.approx(200.0, rel=1e-12)


def test_no_current_has_no_unbalance() -> None:
    columns = readings("RRRS")
    columns["current"] = np.zeros((4, 3))
    (cycle,) = closed(**columns)
    assert cycle.unbalance is None
    assert cycle.asymmetry is None
    assert np.isfinite(cycle.integral).all()


def test_inrush_by_the_first_window_sees_the_first_sample() -> None:
    current = np.array([65.0, 30.0, 9.0, 9.5, 9.0, 80.0, 9.0])
    ts = np.arange(7) * 100
    cycle = one_cycle(ts, current)
    assert cycle.inrush.tolist() == [65.0] * 3
    assert one_cycle(ts, current, CycleParameters(inrush_window_ms=501)).inrush[0] == 80.0
    assert one_cycle(ts, current, CycleParameters(inrush_window_ms=500)).inrush[0] == 65.0


def test_inrush_by_peaks_and_where_there_is_none() -> None:
    current = np.array([65.0, 30.0, 31.0, 9.0, 12.0, 9.0, 40.0, 8.0])
    ts = np.arange(8) * 100
    for k, expected in ((1, 31.0), (2, 40.0)):
        parameters = CycleParameters(inrush_method="peak", inrush_peak=k, inrush_height_a=20)
        cycle = one_cycle(ts, current, parameters)
        assert cycle.inrush[0] == expected
        assert cycle.inrush_found.all()
        assert cycle.inrush_first[0] == 65.0
    parameters = CycleParameters(inrush_method="peak", inrush_peak=3, inrush_height_a=20)
    cycle = one_cycle(ts, current, parameters)
    assert cycle.inrush.tolist() == [0.0] * 3
    assert not cycle.inrush_found.any()


def test_coverage_counts_lost_samples_and_forgives_jitter() -> None:
    ts = np.arange(101) * 100
    assert one_cycle(ts, np.ones(101)).coverage == 1.0
    jitter = ts + np.random.default_rng(2).integers(-20, 21, 101)
    assert one_cycle(jitter, np.ones(101)).coverage == 1.0
    kept = np.delete(ts, np.arange(40, 50))
    cycle = one_cycle(kept, np.ones(91))
    assert cycle.coverage == pytest.approx(0.9)
    assert cycle.status == Status.LOW_COVERAGE
    assert cycle.max_gap_s == 1.1
    assert one_cycle(np.delete(ts, 40), np.ones(100)).coverage == pytest.approx(0.99)


def test_report_by_exception_has_no_holes_unless_an_interval_is_promised() -> None:
    ts = np.array([0, 100, 200, 5_000, 20_000])
    held = CycleParameters(integral="hold")
    assert one_cycle(ts, np.ones(5), held).status == Status.OK
    promised = CycleParameters(integral="hold", interval_ms=1_000)
    assert one_cycle(ts, np.ones(5), promised).status == Status.LOW_COVERAGE


def test_every_part_of_a_run_that_is_too_long_is_truncated() -> None:
    found = closed(CycleParameters(max_cycle_s=1.0), **readings("R" * 25 + "SRRRS"))
    assert [(c.ts, c.samples, c.truncated) for c in found] == [
        (1_100, 11, True),
        (2_200, 11, True),
        (2_500, 3, True),
        (2_900, 3, False),
    ]


def test_a_reading_that_is_not_good_neither_counts_nor_closes() -> None:
    columns = readings("RRRSRRSS")
    columns["good"] = np.array([1, 1, 1, 0, 1, 1, 1, 1], bool)
    columns["current"][1] = np.nan
    (cycle,) = closed(**columns)
    assert (cycle.ts, cycle.samples) == (600, 4)
    assert np.isfinite(cycle.integral).all()


def test_two_phases_are_refused() -> None:
    columns = readings("RRS") | {"current": np.ones((3, 2))}
    with pytest.raises(AnalysisError, match=r"shape \(3, 2\), expected \(3, 3\)"):
        closed(**columns)
    with pytest.raises(AnalysisError, match="running 2"):
        closed(**(readings("RRS") | {"running": np.ones(2, bool)}))


messages = st.lists(
    st.tuples(st.integers(0, 900), st.sampled_from("RRRRRSP"), st.floats(0, 50), st.booleans()),
    max_size=60,
)


@given(read=messages, cuts=st.lists(st.integers(0, 60), max_size=6), parity=st.booleans())
def test_batch_cuts_and_stored_states_do_not_show(
    read: list[tuple[int, str, float, bool]], cuts: list[int], *, parity: bool
) -> None:
    columns = readings("".join(letter for _, letter, _, _ in read))
    columns["ts"] = np.cumsum([dt for dt, _, _, _ in read], dtype=np.int64)
    columns["current"] = np.array([[a, 2 * a, 0.3] for _, _, a, _ in read]).reshape(-1, 3)
    columns["good"] = np.array([good or dt % 3 > 0 for dt, _, _, good in read], bool)
    options: dict[str, Any] = {
        "parameters": CycleParameters(max_cycle_s=4, inrush_method="peak"),
        "parity": parity,
    }
    whole, final = cycles.update(OpenCycle(), **columns, **options)
    state, parts = OpenCycle(), []
    for start, stop in itertools.pairwise(
        sorted({0, len(read), *(c % (len(read) + 1) for c in cuts)})
    ):
        part = {name: column[start:stop] for name, column in columns.items()}
        found, state = cycles.update(state, **part, **options)
        stored = cycles.encode_state(state)
        state = cycles.decode_state(stored)
        assert cycles.encode_state(state) == stored
        parts += found
    assert state == final
    assert repr(parts) == repr(whole)


@given(read=messages)
def test_equals_the_naive_twin(read: list[tuple[int, str, float, bool]]) -> None:
    columns = readings("".join(letter for _, letter, _, _ in read))
    columns["ts"] = np.cumsum([dt for dt, _, _, _ in read], dtype=np.int64)
    columns["current"] = np.array([[a, a, a] for _, _, a, _ in read]).reshape(-1, 3)
    twin = NaiveCycles(max_cycle_s=2.5)
    for ts, (_, letter, current, _) in zip(columns["ts"].tolist(), read, strict=True):
        twin.message(ts, running=letter == "R", pulse=letter == "P", current=current)
    found = closed(CycleParameters(max_cycle_s=2.5), **columns)
    assert [(c.ts, c.integral[0], c.samples, c.truncated) for c in found] == twin.closed


def test_a_damaged_state_is_refused() -> None:
    with pytest.raises(AnalysisError, match="OpenCycle"):
        cycles.decode_state(b"\xc1")
