"""Every detector against its naive twin, to the last bit."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from iiot_platform.analytics import zscore
from iiot_platform.analytics.detector import DetectorRows, Quantity, detector
from iiot_platform.analytics.zscore import WORTH_IMPORTING, ZScore, _Tested
from iiot_platform.core.errors import AnalysisError
from iiot_platform.core.parameters import DetectorParameters
from iiot_platform.core.quality import Status
from tests.reference.naive_detectors import NAIVE, NaiveScript, Row

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
QUICK = {"window": 12, "threshold": 2.0, "rate_window": 9, "relearn_after": 7, "refractory": 4}
CHART = {"cusum_k": 0.4, "cusum_h": 5.0, "ewma_lambda": 0.2}


def eventful(rng: np.random.Generator, n: int, offset: float) -> Any:
    """Noise with glitches, two shifts, a constant stretch and values that are no numbers."""
    x = rng.normal(size=n)
    x[n // 3 :] += 8
    x[2 * n // 3 :] -= 13
    x[n // 2 : n // 2 + 30] = 8.25
    glitches = rng.integers(0, n, n // 25)
    x[glitches] += rng.choice([-1e9, -6.0, 5.0, 30.0], len(glitches))
    x = np.round(x + offset, 3)
    x[rng.integers(0, n, n // 60)] = np.nan
    return x


def columns(rows: list[Row]) -> dict[str, list[float]]:
    return {
        name: [getattr(row, name) for row in rows]
        for name in DetectorRows._fields
        if name != "status"
    }


def assert_same(rows: DetectorRows, naive: list[Row]) -> None:
    for name, expected in columns(naive).items():
        got = getattr(rows, name)
        wanted = np.array(expected, got.dtype)
        assert got.tobytes() == wanted.tobytes(), (name, np.flatnonzero(got != wanted)[:5])
    assert [Status(status).label for status in rows.status] == [row.status for row in naive]


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e9, 1e9])
@pytest.mark.parametrize("name", NAIVE)
def test_equals_the_naive_twin_bit_for_bit(name: str, offset: float) -> None:
    chart = {
        field: value
        for field, value in CHART.items()
        if field.startswith(name) or name not in {"cusum", "ewma"}
    }
    options = QUICK | {"scale_floor": 1e-3}
    own = chart if name in {"cusum", "ewma"} else {}
    acknowledged = (40_000, 61_200)
    parameters = DetectorParameters(
        detector=name,  # type: ignore[arg-type]  # a name of NAIVE is one of the literals
        acknowledged=tuple(EPOCH + timedelta(milliseconds=ms) for ms in acknowledged),
        **options,
        **own,
    )
    rng = np.random.default_rng(7)
    x = eventful(rng, 900, offset)
    good = rng.random(900) > 0.03
    ts = np.arange(900) * 100
    twin = NAIVE[name](**options, **own, acknowledged=acknowledged)
    naive = [twin.message(*row[:2], good=row[2]) for row in zip(ts, x.tolist(), good, strict=True)]
    subject = detector(parameters)
    rows, _ = subject.update(subject.init(parameters), ts, x, good)
    assert_same(rows, naive)
    assert sum(row.shift_event for row in naive) >= 2
    assert sum(row.anomaly for row in naive) > 20


@pytest.mark.parametrize("floor", [{}, {"resolution": 0.5}, {"scale_floor": 2.0}])
@pytest.mark.parametrize("relearn_after", [0, 1, 7])
def test_settings_mean_what_they_mean_to_the_twin(
    floor: dict[str, float], relearn_after: int
) -> None:
    options: dict[str, Any] = QUICK | floor | {"relearn_after": relearn_after}
    x = eventful(np.random.default_rng(3), 500, 20.0)
    twin = NAIVE["zscore"](**options)
    naive = [twin.message(row, value) for row, value in enumerate(x.tolist())]
    parameters = DetectorParameters(**options)
    subject = detector(parameters)
    rows, _ = subject.update(subject.init(parameters), np.arange(500), x, np.ones(500, bool))
    assert_same(rows, naive)


@pytest.mark.parametrize("window", [3, 8, 50, 200])
@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_the_kernel_equals_the_plain_path(window: int, offset: float) -> None:
    options: dict[str, Any] = {"window": window, "threshold": 2.5, "scale_floor": 1e-6}
    x = eventful(np.random.default_rng(5), 6_000, offset)
    good, ts = np.ones(6_000, bool), np.arange(6_000)
    for relearn_after in (0, 50):
        parameters = DetectorParameters(relearn_after=relearn_after, **options)
        plain = ZScore(parameters, engine="plain")
        compiled = ZScore(parameters, engine="compiled")
        rows, state = plain.update(plain.init(parameters), ts, x, good)
        state_between, got = compiled.init(parameters), []
        for start, stop in ((0, 1), (1, 1_000), (1_000, 1_000), (1_000, 6_000)):
            part, state_between = compiled.update(
                state_between, ts[start:stop], x[start:stop], good[start:stop]
            )
            got.append(part)
        for ours, theirs in zip(rows, zip(*got, strict=True), strict=True):
            assert ours.tobytes() == np.concatenate(theirs).tobytes()
        assert state_between == state


@pytest.mark.parametrize("offset", [1e6, 1e9])
def test_the_kernel_equals_the_naive_twin(offset: float) -> None:
    options: dict[str, Any] = {"window": 50, "threshold": 2.0, "scale_floor": 1e-6}
    x = eventful(np.random.default_rng(6), 2_000, offset)
    twin = NAIVE["zscore"](**options)
    naive = [twin.message(row, value) for row, value in enumerate(x.tolist())]
    parameters = DetectorParameters(**options)
    subject = ZScore(parameters, engine="compiled")
    rows, _ = subject.update(subject.init(parameters), np.arange(2_000), x, np.ones(2_000, bool))
    assert_same(rows, naive)


@pytest.mark.parametrize("quantity", list(Quantity))
def test_parity_equals_the_older_script(quantity: Quantity) -> None:
    rng = np.random.default_rng(11)
    x = np.round(rng.normal(20, 1, 1_500), 2)
    x[400:700] = 21.3
    x[800:] *= -1
    x[1_000::37] *= 1.5
    parameters = DetectorParameters(parity=True)
    subject = detector(parameters, quantity=quantity)
    rows, _ = subject.update(subject.init(parameters), np.arange(1_500), x, np.ones(1_500, bool))
    length = {Quantity.ELECTRICAL: 25, Quantity.SIGNAL: 50, Quantity.VALVE: 50}.get(quantity, 100)
    script = NaiveScript(quantity.value, length=length)
    naive = [script.message(value) for value in x.tolist()]
    for row in naive:  # the scripts alerted on every flag
        row.alert = 0
    assert_same(rows._replace(alert=np.zeros(1_500, np.int8)), naive)
    assert 20 < rows.anomaly.sum() < 1_400
    assert rows.anomaly_ratio.max() > 0


def test_parity_settings_that_were_set_are_kept() -> None:
    parameters = DetectorParameters(parity=True, window=30)
    made: Any = detector(parameters, quantity=Quantity.VIBRATION)
    assert made.parameters.window == 30
    assert made.parameters.rate_window == 100
    assert made.parameters.threshold == 2.0


def test_parity_of_another_detector_is_refused() -> None:
    with pytest.raises(AnalysisError, match="not 'cusum'"):
        detector(DetectorParameters(parity=True, detector="cusum"))


def test_fifty_equal_values_have_std_zero_in_parity() -> None:
    parameters = DetectorParameters(parity=True)
    subject = detector(parameters)
    x = np.append(np.full(50, 21.3), [21.3, 21.301, 21.303])
    rows, _ = subject.update(subject.init(parameters), np.arange(53), x, np.ones(53, bool))
    assert rows.model_std[50] == 0.001
    assert rows.z_score[50] == 0.0
    assert rows.z_score[51] == 1.0
    assert rows.model_avg[50] == 21.3


def test_a_live_batch_loads_no_compiler_and_no_table_library() -> None:
    code = """
import sys
import numpy as np
from iiot_platform.analytics import cycles, state_time, states, vibration
from iiot_platform.analytics import zscore
from iiot_platform.analytics.detector import detector
from iiot_platform.core.parameters import DetectorParameters
parameters = DetectorParameters()
subject = detector(parameters)
subject.update(subject.init(parameters), np.arange(9_000), np.ones(9_000), np.ones(9_000, bool))
print({"numba", "scipy", "pyarrow", "pandas", "dagster"} & set(sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_a_process_takes_the_kernel_once_it_would_have_paid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, zscore._KERNEL, raising=False)
    monkeypatch.setattr(zscore, "_tested", _Tested())
    detectors = [ZScore(DetectorParameters(), engine=name) for name in ("auto", "plain")]
    half = WORTH_IMPORTING // 200 // 2
    assert [d._takes_kernel(half) for d in detectors] == [False, False]
    assert [d._takes_kernel(half) for d in detectors] == [True, False]


def test_a_process_that_has_the_kernel_takes_it_for_every_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, zscore._KERNEL, ModuleType(zscore._KERNEL))
    assert ZScore(DetectorParameters())._takes_kernel(1)
    assert not ZScore(DetectorParameters(), engine="plain")._takes_kernel(1)


def test_a_small_std_is_not_raised_in_parity() -> None:
    parameters = DetectorParameters(parity=True, threshold=1e6)
    subject = detector(parameters, quantity=Quantity.ELECTRICAL)
    x = np.append(np.tile([21.3, 21.3002], 13)[:25], [22.0])
    rows, _ = subject.update(subject.init(parameters), np.arange(26), x, np.ones(26, bool))
    script = NaiveScript("electrical", threshold=1e6, length=25)
    expected = [script.message(value) for value in x.tolist()][-1]
    assert rows.z_score[25] == expected.z_score > 5_000
