"""What every detector must keep, whichever algorithm it is."""

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.analytics.detector import (
    Detector,
    DetectorRows,
    Quantity,
    decode_state,
    detector,
    encode_state,
)
from iiot_platform.core.errors import AnalysisError
from iiot_platform.core.parameters import DetectorParameters
from iiot_platform.core.quality import Status
from tests.servers.effort import BROAD

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SMALL = {"window": 6, "threshold": 2.5, "rate_window": 5, "relearn_after": 4, "refractory": 3}
CHART = SMALL | {"cusum_k": 0.5, "cusum_h": 4.0, "ewma_lambda": 0.3}
VARIANTS = {
    "zscore": (DetectorParameters(**SMALL), Quantity.SIGNAL),
    "robust_z": (DetectorParameters(detector="robust_z", **SMALL), Quantity.SIGNAL),
    "cusum": (DetectorParameters(detector="cusum", **CHART), Quantity.SIGNAL),
    "cusum_unclipped": (
        DetectorParameters(detector="cusum", cusum_clip=None, **CHART),
        Quantity.SIGNAL,
    ),
    "ewma": (DetectorParameters(detector="ewma", **CHART), Quantity.SIGNAL),
} | {
    f"parity_{quantity.value}": (
        DetectorParameters(parity=True, window=6, rate_window=5),
        quantity,
    )
    for quantity in Quantity
}


Variant = tuple[DetectorParameters, Any]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20_240_229)


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Variant:
    parameters, quantity = VARIANTS[request.param]
    return parameters, detector(parameters, quantity=quantity)


def run(
    subject: Detector[Any],
    parameters: DetectorParameters,
    x: Any,
    good: Any = None,
    ts: Any = None,
    state: Any = None,
) -> tuple[DetectorRows, Any]:
    x = np.asarray(x, np.float64)
    good = np.ones(len(x), bool) if good is None else np.asarray(good, bool)
    ts = np.arange(len(x)) * 100 if ts is None else ts
    return subject.update(subject.init(parameters) if state is None else state, ts, x, good)


def same(rows: Any, others: Any) -> bool:
    return all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(rows, others, strict=True)
    )


values = st.one_of(
    st.floats(-5, 5),
    st.sampled_from([0.0, -0.0, 1.0, 50.0, 1e9, np.nan, np.inf, -np.inf, 1e300, 5e-324]),
)
series = st.lists(st.tuples(values, st.booleans() | st.just(value=True)), max_size=60)


@BROAD
@pytest.mark.parametrize("name", VARIANTS)
@given(data=st.data())
def test_batch_cuts_and_stored_states_do_not_show(name: str, data: st.DataObject) -> None:
    parameters, quantity = VARIANTS[name]
    read = data.draw(series)
    at = data.draw(st.lists(st.integers(0, 6000), max_size=2))
    moments = tuple(EPOCH + timedelta(milliseconds=ms) for ms in at)
    parameters = parameters.model_copy(update={"acknowledged": moments})
    subject = detector(parameters, quantity=quantity)
    x = np.array([value for value, _ in read], np.float64)
    good = np.array([quality for _, quality in read], bool)
    ts = np.arange(len(x)) * 100
    whole, final = run(subject, parameters, x, good, ts)

    cuts = sorted({0, len(x), *data.draw(st.lists(st.integers(0, len(x)), max_size=8))})
    state, parts = subject.init(parameters), []
    for start, stop in itertools.pairwise(cuts):
        rows, state = subject.update(state, ts[start:stop], x[start:stop], good[start:stop])
        stored = encode_state(state)
        state = decode_state(parameters, stored)
        assert encode_state(state) == stored
        parts.append(rows)
    assert encode_state(state) == encode_state(final)
    if parts:
        assert same(whole, [np.concatenate(column) for column in zip(*parts, strict=True)])


@BROAD
@pytest.mark.parametrize("name", VARIANTS)
@given(read=series)
def test_every_field_is_finite_and_the_flag_is_the_statistic_beyond_its_limit(
    name: str, read: list[tuple[float, bool]]
) -> None:
    parameters, quantity = VARIANTS[name]
    subject = detector(parameters, quantity=quantity)
    good = [quality for _, quality in read]
    rows, _ = run(subject, parameters, [value for value, _ in read], good)
    for column in rows:
        assert len(column) == len(read)
        assert np.isfinite(column).all()
    tested = (rows.status == Status.OK) | (rows.status == Status.RELEARNED)
    beyond = np.abs(rows.z_score) > rows.z_score_thresh
    assert (rows.anomaly[tested] == beyond[tested]).all()
    assert not rows.anomaly[~tested].any()
    assert not rows.z_score[~tested].any()
    assert (rows.alert <= rows.anomaly).all()
    assert ((rows.status == Status.RELEARNED) == rows.shift_event).all()
    assert ((rows.anomaly_ratio >= 0) & (rows.anomaly_ratio <= 1)).all()


def test_what_is_not_good_or_not_finite_never_reaches_the_model(
    variant: Variant, rng: np.random.Generator
) -> None:
    parameters, subject = variant
    x = rng.normal(size=80)
    clean, final = run(subject, parameters, x)
    rows = np.sort(rng.integers(0, 80, 30))
    junk = np.array([np.nan, np.inf, -np.inf, 1e101, 7.0])[np.arange(30) % 5]
    dirty, after = run(
        subject,
        parameters,
        np.insert(x, rows, junk),
        np.insert(np.ones(80, bool), rows, junk != 7.0),
    )
    bad = dirty.status == Status.BAD_QUALITY
    assert bad.sum() == 30
    unaffected = [name for name in clean._fields if name != "alert"]  # points, not good points
    for name in unaffected:
        assert getattr(clean, name).tobytes() == getattr(dirty, name)[~bad].tobytes()
    assert (after.window, after.streak, after.tally.flags) == (
        final.window,
        final.streak,
        final.tally.flags,
    )
    assert not dirty.anomaly[bad].any()


def test_a_row_of_bad_quality_shows_the_model_in_force(
    variant: Variant, rng: np.random.Generator
) -> None:
    parameters, subject = variant
    x = rng.normal(size=20)
    _, state = run(subject, parameters, x)
    good, _ = run(subject, parameters, [0.1], state=state)
    bad, _ = run(subject, parameters, [np.nan], state=state)
    assert bad.model_avg == good.model_avg
    assert bad.model_std == good.model_std
    assert bad.z_score_thresh == good.z_score_thresh


def test_arguments_are_not_changed(variant: Variant, rng: np.random.Generator) -> None:
    parameters, subject = variant
    x = rng.normal(size=40)
    arguments = (np.arange(40) * 100, x, np.ones(40, bool))
    for argument in arguments:
        argument.flags.writeable = False
    _, state = subject.update(subject.init(parameters), *arguments)
    before = encode_state(state)
    subject.update(state, *arguments)
    assert encode_state(state) == before


def test_warming_rows_are_all_zero(variant: Variant, rng: np.random.Generator) -> None:
    parameters, subject = variant
    rows, _ = run(subject, parameters, rng.normal(size=8))
    assert (rows.status[:6] == Status.WARMING).all()
    assert (rows.status[6:] != Status.WARMING).all()
    for name in set(rows._fields) - {"status"}:
        assert not getattr(rows, name)[:6].any()


def test_an_acknowledgement_starts_the_series_anew(
    variant: Variant, rng: np.random.Generator
) -> None:
    parameters, subject = variant
    x = rng.normal(size=60)
    moment = EPOCH + timedelta(milliseconds=2_950)
    acknowledging = dataclasses.replace(
        subject, parameters=subject.parameters.model_copy(update={"acknowledged": (moment,)})
    )
    rows, state = run(acknowledging, parameters, x)
    fresh, _ = run(subject, parameters, x[30:])
    assert same([column[30:] for column in rows], fresh)
    assert state.tally.acknowledged_ms == 2_950


def test_an_empty_batch_changes_nothing(variant: Variant, rng: np.random.Generator) -> None:
    parameters, subject = variant
    _, state = run(subject, parameters, rng.normal(size=20))
    rows, after = run(subject, parameters, [], state=state)
    assert encode_state(after) == encode_state(state)
    assert {len(column) for column in rows} == {0}


def test_columns_of_different_lengths_are_refused(variant: Variant) -> None:
    parameters, subject = variant
    with pytest.raises(AnalysisError, match="ts 3, x 2, good 3"):
        run(subject, parameters, [1.0, 2.0], [True] * 3, np.arange(3))


def test_a_state_of_another_window_is_refused(variant: Variant) -> None:
    parameters, subject = variant
    other = parameters.model_copy(update={"window": 7})
    with pytest.raises(AnalysisError, match="window of 7 values, the settings say 6"):
        run(subject, parameters, [1.0], state=subject.init(other))


def test_a_state_of_another_detector_is_refused(variant: Variant) -> None:
    parameters, subject = variant
    name = "zscore" if parameters.detector != "zscore" or parameters.parity else "ewma"
    other = DetectorParameters(detector=name)
    with pytest.raises(AnalysisError, match="State"):
        decode_state(other, encode_state(subject.init(parameters)))
    with pytest.raises(AnalysisError, match="State"):
        decode_state(parameters, b"\x00damaged")
