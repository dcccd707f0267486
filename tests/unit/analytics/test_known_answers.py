"""Figures that the detectors must give on data whose answer is known."""

import math
from typing import Any

import numpy as np
import pytest

from iiot_platform.analytics.cusum import Cusum, CusumState
from iiot_platform.analytics.detector import DetectorRows, detector
from iiot_platform.analytics.ewma import Ewma
from iiot_platform.analytics.zscore import ZScore
from iiot_platform.core.parameters import DetectorParameters
from iiot_platform.core.quality import Status


def rows_of(x: Any, **options: Any) -> DetectorRows:
    parameters = DetectorParameters(**options)
    subject = detector(parameters)
    if parameters.detector == "zscore":
        subject = ZScore(parameters, engine="compiled")
    x = np.asarray(x, np.float64)
    return subject.update(subject.init(parameters), np.arange(len(x)), x, np.ones(len(x), bool))[0]


def num_acc(offset: float) -> Any:
    """NIST StRD NumAcc3 (offset 1e6) and NumAcc4 (1e7): 1001 values, mean .2, std 0.1."""
    return np.array([offset + 0.2] + [offset + 0.1, offset + 0.3] * 500)


def digits(got: float, certified: float) -> float:
    return -math.log10(abs(got - certified) / certified) if got != certified else 15.0


@pytest.mark.parametrize("engine", ["plain", "compiled"])
@pytest.mark.parametrize(("offset", "expected"), [(1e6, 9), (1e7, 8)])
def test_nist_accuracy(engine: Any, offset: float, expected: int) -> None:
    parameters = DetectorParameters(window=1_001, scale_floor=1e-12)
    subject = ZScore(parameters, engine=engine)
    x = np.append(num_acc(offset), offset + 0.2)
    rows, _ = subject.update(subject.init(parameters), np.arange(1_002), x, np.ones(1_002, bool))
    assert digits(float(rows.model_avg[-1]), offset + 0.2) >= expected
    assert digits(float(rows.model_std[-1]), 0.1) >= expected


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"threshold": 2.0, "window": 50, "relearn_after": 0}, 0.196),
        ({"threshold": 3.0, "window": 50}, 0.0057),
        ({"threshold": 3.0, "window": 200}, 0.0037),
    ],
)
def test_false_alarms_on_gaussian_noise(options: dict[str, Any], rate: float) -> None:
    """The tolerance is that of the simulation: alarms of one series cluster as windows shrink."""
    n = 400_000
    x = np.random.default_rng(1).normal(100.0, 1.0, n)
    found = rows_of(x, scale_floor=1e-9, **options).anomaly.mean()
    assert found == pytest.approx(rate, rel=0.1)


def test_default_false_alarms_are_under_one_in_a_thousand() -> None:
    x = np.random.default_rng(2).normal(100.0, 1.0, 400_000)
    rows = rows_of(x)
    assert 0.0003 < rows.anomaly.mean() <= 0.001
    assert rows.shift_event.sum() == 0
    assert not rows.off_reference.any()


@pytest.mark.parametrize("name", ["zscore", "robust_z", "cusum", "ewma"])
def test_a_shift_of_ten_sigma_alarms_shortly_and_is_remembered(name: str) -> None:
    x = np.random.default_rng(3).normal(100.0, 1.0, 11_000)
    x[1_000:] += 10
    rows = rows_of(x, detector=name)
    assert rows.anomaly[1_000:].sum() <= 100
    assert rows.shift_event.sum() == 1
    event = int(np.argmax(rows.shift_event))
    assert 1_000 < event < 1_100
    assert rows.status[event] == Status.RELEARNED
    assert not rows.off_reference[:event].any()
    assert rows.off_reference[event:].all()
    assert 1 <= rows.alert[1_000 : event + 1].sum() <= 2


def test_without_relearning_a_shift_alarms_for_ever() -> None:
    x = np.random.default_rng(3).normal(100.0, 1.0, 5_000)
    x[1_000:] += 10
    rows = rows_of(x, relearn_after=0)
    assert rows.anomaly[1_000:].all()
    alerts = np.flatnonzero(rows.alert[1_000:])
    assert np.diff(alerts).tolist() == [201] * (len(alerts) - 1)


def test_a_jump_back_to_the_reference_does_not_latch() -> None:
    rng = np.random.default_rng(4)
    x = 100 + rng.normal(0, 1, 6_000)
    x[400:4_400] += np.linspace(0, 40, 4_000)  # wear that the moving window follows
    rows = rows_of(x, relearn_after=50)
    event = np.flatnonzero(rows.shift_event)
    assert len(event) == 1
    assert event[0] == pytest.approx(4_450, abs=5)
    assert not rows.off_reference.any()


def test_slow_wear_is_seen_by_the_cusum_alone() -> None:
    rng = np.random.default_rng(4)
    x = 100 + rng.normal(0, 1, 10_000) + np.linspace(0, 20, 10_000)
    assert rows_of(x).shift_event.sum() == 0
    cusum = rows_of(x, detector="cusum")
    assert 0 < np.argmax(cusum.off_reference) < 2_000
    assert cusum.off_reference[-1] == 1


def test_default_cusum_is_silent_on_noise() -> None:
    x = np.random.default_rng(8).normal(100.0, 1.0, 10_200)
    rows = rows_of(x, detector="cusum")
    assert rows.anomaly.sum() == 0


@pytest.mark.parametrize(("h", "expected"), [(4.0, 168.0), (5.0, 465.0)])
def test_average_run_length_of_the_cusum(h: float, expected: float) -> None:
    """Two-sided, k = 0.5, mean and std known (Montgomery, table 9.3); 4,000 runs: +-1.6%."""
    parameters = DetectorParameters(detector="cusum", cusum_k=0.5, cusum_h=h, cusum_clip=None)
    step = Cusum(parameters).recursion()
    rng = np.random.default_rng(9)
    memory, length, lengths = (0.0, 0.0), 0, []
    while len(lengths) < 4_000:
        for z in rng.normal(size=10_000).tolist():
            memory, statistic = step(memory, z)
            length += 1
            if abs(statistic) > h:
                lengths.append(length)
                memory, length = (0.0, 0.0), 0
    assert np.mean(lengths) == pytest.approx(expected, rel=0.05)


def test_a_state_can_be_built_with_a_known_reference() -> None:
    parameters = DetectorParameters(detector="cusum", cusum_h=4.0, cusum_k=0.5)
    subject = Cusum(parameters)
    known = CusumState(size=parameters.window, reference=(10.0, 2.0), memory=(0.0, 0.0))
    x = np.array([14.0, 14.0, 14.0, 10.0])
    rows, _ = subject.update(known, np.arange(4), x, np.ones(4, bool))
    assert rows.z_score.tolist() == [1.5, 3.0, 4.5, 4.0]
    assert rows.anomaly.tolist() == [0, 0, 1, 0]


def test_the_ewma_limit_is_that_of_its_own_variance() -> None:
    """Of t values: var = lambda / (2 - lambda)·(1 - (1 - lambda)^2t)."""
    step = Ewma(DetectorParameters(detector="ewma", ewma_lambda=0.1)).recursion()
    memory, average = (0.0, 1.0), 0.0
    for t, z in enumerate([1.0, -0.5, 2.0, 0.25, 3.0], start=1):
        memory, statistic = step(memory, z)
        average = 0.1 * z + 0.9 * average
        std = math.sqrt(0.1 / 1.9 * (1 - 0.9 ** (2 * t)))
        assert statistic == pytest.approx(average / std, rel=1e-12)


def test_robust_z_withstands_what_blinds_the_z_score() -> None:
    rng = np.random.default_rng(12)
    x = rng.normal(0, 1, 400)
    x[:200:10] = 1_000.0  # a tenth of the learning window
    x[300] = 30.0
    assert rows_of(x, detector="robust_z").anomaly[300] == 1
    assert rows_of(x).anomaly[300] == 0
