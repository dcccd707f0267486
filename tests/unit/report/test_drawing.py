import re
from typing import Literal

import numpy as np
import pytest

from iiot_platform.report.content import Band, Chart, Curve, Stretch, Timeline
from iiot_platform.report.drawing import Canvas, number, value_ticks

START = 1_795_338_000_000
CANVAS = Canvas(START, START + 100_000)
TS = START + 10_000 * np.arange(11)


def paths(html: str, name: str) -> list[str]:
    return re.findall(rf'<path class="{name}" d="([^"]*)"', html)


def test_a_point_lies_where_its_time_and_value_say() -> None:
    curve = Curve("value", TS, np.linspace(0.0, 10.0, 11))
    html = CANVAS.chart(Chart("ramp", (curve,), bounds=(0.0, 10.0)))

    (line,) = paths(html, "c0")
    assert line.startswith("M0 200L100 180L200 160")
    assert line.endswith("L1000 0")


def test_limits_and_anomalies_are_drawn_where_they_are() -> None:
    curve = Curve("value", TS, np.full(11, 5.0))
    band = Band(TS[5:], np.full(6, 2.5), np.full(6, 7.5))
    flags = Curve("anomaly", TS[[2]], np.array([5.0]))
    html = CANVAS.chart(Chart("flat", (curve,), band=band, anomalies=flags, bounds=(0.0, 10.0)))

    (shape,) = paths(html, "band")
    assert shape.startswith("M500 50L600 50")
    assert shape.endswith("L500 150Z")
    assert paths(html, "anomaly dot") == ["M200 100h0"]


def test_bars_stand_on_zero_and_nothing_stands_for_it() -> None:
    values = np.zeros(11)
    values[3] = 4.0
    html = CANVAS.chart(Chart("counts", (Curve("n", TS, values),), style="bars", bounds=(0.0, 8.0)))

    assert paths(html, "c0 bars") == ["M300 100V200"]


def test_a_chart_without_a_value_is_drawn_empty() -> None:
    for values in (np.zeros(0), np.full(11, np.nan)):
        html = CANVAS.chart(Chart("nothing", (Curve("value", TS[: len(values)], values),)))
        assert "nan" not in html.lower()


@pytest.mark.parametrize("size", [1e-300, 1e-12, 1e9, 1e15, 1e290])
@pytest.mark.parametrize("style", ["line", "points", "bars"])
def test_any_size_of_values_can_be_drawn(size: float, style: Literal["line", "bars"]) -> None:
    for values in (np.full(11, size), np.linspace(-size, size, 11), size + np.arange(11.0)):
        html = CANVAS.chart(Chart("size", (Curve("value", TS, values),), style=style))
        assert not re.search(r"\b(nan|inf)\b", html)


def test_a_constant_value_has_room_above_and_below() -> None:
    html = CANVAS.chart(Chart("constant", (Curve("value", TS, np.full(11, 42.0)),)))
    (line,) = paths(html, "c0")
    assert line.startswith("M0 100L")


def test_states_lie_beside_each_other() -> None:
    held = (Stretch(START, START + 40_000, 1), Stretch(START + 40_000, START + 100_000, 9))
    html = CANVAS.timeline(Timeline("States", (("press / mode", held),)))

    assert '<rect class="s1" x="0.0" y="0" width="400.0"' in html
    assert '<rect class="s2" x="400.0" y="0" width="600.0"' in html
    assert "finer" not in html
    assert "7 changes are finer" in CANVAS.timeline(Timeline("States", (("a", held),), finer=7))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (12_345.0, "12,345"),
        (12_345.67, "12,346"),
        (161.2239, "161.2"),
        (0.850902, "0.8509"),
        (-0.00123456, "-0.001235"),
        (1.5e12, "1.5e+12"),
        (float("nan"), "-"),
    ],
)
def test_numbers_have_four_digits_that_count(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 1.0, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (10_000.1, 10_000.5, ["10,000.1", "10,000.2", "10,000.3", "10,000.4", "10,000.5"]),
        (0.0, 612.0, ["0", "200", "400", "600"]),
        (-3.0, 3.0, ["-2", "0", "2"]),
    ],
)
def test_ticks_are_round_and_told_apart(low: float, high: float, texts: list[str]) -> None:
    assert [text for _, text in value_ticks(low, high)] == texts
