"""Draws charts as HTML with inline SVG; a picture stretches with the page, its text does not."""

import math
from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

import numpy as np

from iiot_platform.core.clock import from_ms
from iiot_platform.report.content import Band, Chart, Curve, Figures, Timeline, Times, Values
from iiot_platform.report.downsampling import (
    breaks,
    column_of,
    kept,
    last_of_columns,
)

_WIDTH: Final = 1_000
_HEIGHT: Final = 200
_RATIO_HEIGHT: Final = 40
_COLORS: Final = 7
_TICKS: Final = 4
_TIME_TICKS: Final = 6
_STEPS_MS: Final = (
    *(1_000, 2_000, 5_000, 10_000, 15_000, 30_000),
    *(60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000),
    *(3_600_000, 7_200_000, 14_400_000, 21_600_000, 43_200_000, 86_400_000),
)
_MINUTE_MS: Final = 60_000
_ROOM: Final = 0.06
_DIGITS: Final = 4
_NEARLY: Final = 1 - 1e-9
"""So that the last bit of a difference decides nothing."""
_SMALLEST_SIZE: Final = -4
_LARGEST_SIZE: Final = 8


class Canvas:
    """Where the charts of one report lie on their axis of time.

    Args:
        start_ms: first time.
        end_ms: last time.
    """

    def __init__(self, start_ms: int, end_ms: int) -> None:
        self.start_ms = start_ms
        self.end_ms = max(end_ms, start_ms + 1)

    def chart(self, chart: Chart) -> str:
        """One chart as HTML."""
        lowest, highest = _bounds(chart)
        scale = _Scale(self, lowest, highest)
        shapes = [*_grid(scale), *_band(scale, chart.band)]
        for number, curve in enumerate(chart.curves):
            shapes.append(_curve(scale, curve, number, chart.style))
        shapes += [_level(scale, ts) for ts in chart.shifts.tolist()]
        if chart.anomalies is not None:
            shapes.append(_flags(scale, chart.anomalies))
        limits = f'data-low="{lowest!r}" data-high="{highest!r}"'
        size = "wide" if chart.wide else ""
        return (
            f'<figure class="chart {size}"><figcaption><b>{escape(chart.title)}</b>'
            f" {_unit(chart.unit)}{_legend(chart)}{_caption(chart.figures)}</figcaption>"
            f'<div class="plot" {limits}>{_value_ticks(scale)}'
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none"'
            f' role="img" aria-label="{escape(chart.title)}">{"".join(shapes)}</svg></div>'
            f"{self._ratio(chart)}{self.times()}</figure>"
        )

    def timeline(self, timeline: Timeline) -> str:
        """States as bands, one row each."""
        rows = []
        for name, held in timeline.rows:
            shapes = "".join(
                f'<rect class="s{one.value % _COLORS}" x="{self.x(one.start_ms):.1f}" y="0"'
                f' width="{max(self.x(one.end_ms) - self.x(one.start_ms), 0.3):.1f}" height="10">'
                f"<title>{one.value}</title></rect>"
                for one in held
            )
            rows.append(
                f'<div class="state"><span>{escape(name)}</span><svg viewBox="0 0 {_WIDTH} 10"'
                f' preserveAspectRatio="none">{shapes}</svg></div>'
            )
        values = sorted({one.value for _, held in timeline.rows for one in held})
        legend = "".join(f'<span><i class="key s{v % _COLORS}"></i>{v}</span> ' for v in values)
        note = (
            f" {timeline.finer:,} changes are finer than a column; each column shows the value"
            " that held the longest."
            if timeline.finer
            else ""
        )
        return (
            f'<figure class="chart wide"><figcaption><b>{escape(timeline.title)}</b>'
            f' <span class="legend">{legend}</span> <small>values as the machines send'
            f" them.{note}</small></figcaption>{''.join(rows)}"
            f"{self.times()}</figure>"
        )

    def x(self, ts_ms: float) -> float:
        """A time's place between 0 and the width."""
        part = (ts_ms - self.start_ms) / (self.end_ms - self.start_ms)
        return min(max(part, 0.0), 1.0) * _WIDTH

    def xs(self, ts: Times) -> Values:
        """The same of several times."""
        return np.clip((ts - self.start_ms) / (self.end_ms - self.start_ms), 0, 1) * _WIDTH

    def times(self) -> str:
        """The axis of time; the script shows the reader's own zone."""
        period = self.end_ms - self.start_ms
        step = next((s for s in _STEPS_MS if period / s <= _TIME_TICKS), _STEPS_MS[-1])
        first = -(-self.start_ms // step) * step
        ticks = [first + i * step for i in range(int((self.end_ms - first) // step) + 1)]
        form = "%H:%M:%S" if step < _MINUTE_MS else "%H:%M"
        return (
            '<div class="times">'
            + "".join(
                f'<time style="left:{self.x(t) / _WIDTH:.2%}" data-ms="{t}"'
                f' data-form="{form.count("%")}">{from_ms(t).strftime(form)}</time>'
                for t in ticks
            )
            + "</div>"
        )

    def _ratio(self, chart: Chart) -> str:
        """A strip with the anomaly ratio from 0 to 1, where there was any anomaly."""
        ratio = chart.ratio
        if ratio is None or not (ratio.values > 0).any():
            return ""
        scale = _Scale(self, 0.0, 1.0, _RATIO_HEIGHT)
        line = _curve(scale, ratio, 0, "line").replace('class="c0"', 'class="ratio"')
        return (
            f'<div class="strip"><span>ratio</span><svg viewBox="0 0 {_WIDTH} {_RATIO_HEIGHT}"'
            f' preserveAspectRatio="none" aria-label="anomaly ratio">{line}</svg></div>'
        )


class _Scale:
    """Places of values on a canvas."""

    def __init__(self, canvas: Canvas, low: float, high: float, height: int = _HEIGHT) -> None:
        self.canvas = canvas
        self.low = low
        self.high = high
        self.height = height

    def ys(self, values: Values) -> Values:
        part = (values - self.low) / (self.high - self.low)
        return (1 - np.clip(part, 0, 1)) * self.height

    def y(self, value: float) -> float:
        return float(self.ys(np.array([value]))[0])

    def points(self, ts: Times, values: Values) -> list[str]:
        xs, ys = self.canvas.xs(ts).round(1), self.ys(values).round(1)
        return [f"{x:g} {y:g}" for x, y in zip(xs.tolist(), ys.tolist(), strict=True)]


def _bounds(chart: Chart) -> tuple[float, float]:
    parts = [curve.values for curve in chart.curves] + [chart.band.lower, chart.band.upper]
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    lowest = float(values.min()) if len(values) else 0.0
    highest = float(values.max()) if len(values) else 1.0
    room = (highest - lowest) * _ROOM or max(abs(highest) * _ROOM, 1e-9)
    low, high = chart.bounds
    low = lowest - room if low is None else low
    high = highest + room if high is None else high
    return (low, high) if high > low else (low, low + 1.0)


def value_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers between two values, about four of them, and how they are written."""
    rough = (high - low) / _TICKS
    size = math.floor(math.log10(rough))
    step, decimals = next(
        (factor * 10.0**size, more - size)
        for factor, more in ((1, 0), (2, 0), (2.5, 1), (5, 0), (10, -1))
        if factor * 10.0**size >= rough * _NEARLY
    )
    first, last = math.ceil(low / step), math.floor(high / step)
    ticks = [n * step for n in range(first, last + 1)]
    if size > _LARGEST_SIZE or size < _SMALLEST_SIZE:
        return [(tick, f"{tick:.4g}") for tick in ticks]
    return [(tick, f"{tick:,.{max(decimals, 0)}f}") for tick in ticks]


def _value_ticks(scale: _Scale) -> str:
    labels = "".join(
        f'<span style="top:{scale.y(tick) / scale.height:.2%}">{text}</span>'
        for tick, text in value_ticks(scale.low, scale.high)
    )
    return f'<div class="values">{labels}</div>'


def _grid(scale: _Scale) -> Iterator[str]:
    for tick, _ in value_ticks(scale.low, scale.high):
        y = scale.y(tick)
        yield f'<path class="grid" d="M0 {y:.1f}H{_WIDTH}"/>'


def _band(scale: _Scale, band: Band) -> Iterator[str]:
    if not len(band.ts):
        return
    chosen = last_of_columns(band.ts, scale.canvas.start_ms, scale.canvas.end_ms)
    starts = np.flatnonzero(breaks(band.ts, chosen))
    upper = scale.points(band.ts[chosen], band.upper[chosen])
    lower = scale.points(band.ts[chosen], band.lower[chosen])
    shape = "".join(
        f"M{'L'.join(upper[a:b] + lower[a:b][::-1])}Z"
        for a, b in zip(starts, [*starts[1:], len(chosen)], strict=True)
    )
    yield f'<path class="band" d="{shape}"/>'


def _curve(scale: _Scale, curve: Curve, number: int, style: str) -> str:
    canvas = scale.canvas
    chosen = kept(curve.ts, curve.values, canvas.start_ms, canvas.end_ms)
    color = f"c{number % _COLORS}"
    if style == "bars":
        return _bars(scale, curve, color)
    if not len(chosen):
        return ""
    points = scale.points(curve.ts[chosen], curve.values[chosen])
    starts = breaks(curve.ts, chosen, valid=np.isfinite(curve.values)).tolist()
    line = "".join(f"{'M' if s else 'L'}{p}" for p, s in zip(points, starts, strict=True))
    shape = f'<path class="{color}" d="{line}"/>'
    alone = [
        p
        for p, s, following in zip(points, starts, [*starts[1:], True], strict=True)
        if style == "points" or (s and following)
    ]
    return shape + (f'<path class="{color} dot" d="{_dots(alone)}"/>' if alone else "")


def _bars(scale: _Scale, curve: Curve, color: str) -> str:
    """The largest value of each column as a bar."""
    present = np.flatnonzero(curve.values > 0)
    columns = column_of(curve.ts[present], scale.canvas.start_ms, scale.canvas.end_ms)
    tallest: dict[int, tuple[float, int]] = {}
    for column, index in zip(columns.tolist(), present.tolist(), strict=True):
        one = (float(curve.values[index]), index)
        tallest[column] = max(tallest.get(column, one), one)
    chosen = np.array([index for _, index in tallest.values()], np.int64)
    bottom = scale.y(max(scale.low, 0.0))
    shape = "".join(
        f"M{p}V{bottom:g}" for p in scale.points(curve.ts[chosen], curve.values[chosen])
    )
    return f'<path class="{color} bars" d="{shape}"/>'


def _flags(scale: _Scale, flags: Curve) -> str:
    """A dot for each anomaly; where several share a column, for its lowest and its highest."""
    chosen = kept(flags.ts, flags.values, scale.canvas.start_ms, scale.canvas.end_ms)
    points = scale.points(flags.ts[chosen], flags.values[chosen])
    return f'<path class="anomaly dot" d="{_dots(points)}"/>' if points else ""


def _dots(points: Iterable[str]) -> str:
    return "".join(f"M{point}h0" for point in points)


def _level(scale: _Scale, ts_ms: int) -> str:
    x = scale.canvas.x(ts_ms)
    return f'<path class="shift" d="M{x:.1f} 0V{scale.height}"><title>level shift</title></path>'


def _unit(unit: str) -> str:
    return f'<span class="unit">{escape(unit)}</span>' if unit else ""


def _legend(chart: Chart) -> str:
    if len(chart.curves) < 2:  # noqa: PLR2004  # one curve is named by the title
        return ""
    keys = "".join(
        f'<span><i class="key c{i % _COLORS}"></i>{escape(curve.name)}</span> '
        for i, curve in enumerate(chart.curves)
    )
    return f'<span class="legend">{keys}</span>'


def _caption(figures: Figures | None) -> str:
    if figures is None:
        return ""
    alarm = ' class="alarm"' if figures.anomalies else ""
    word = "anomaly" if figures.anomalies == 1 else "anomalies"
    parts = [f"<span{alarm}>{figures.anomalies:,} {word}</span> in {figures.rows:,} rows"]
    if figures.value is not None:
        parts.append(f"now {number(figures.value)}")
    if figures.lower is None or figures.upper is None:
        parts.append(f"learning ({figures.warming:,} rows)")
    else:
        parts.append(f"limits {number(figures.lower)} to {number(figures.upper)}")
    if figures.off_reference:
        parts.append('<span class="alarm">off reference</span>')
    return f" <small>{' · '.join(parts)}</small>"


def number(value: float) -> str:
    """A number as it is shown: four digits that count, or all of a whole number."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if not _SMALLEST_SIZE <= size <= _LARGEST_SIZE:
        return f"{value:.4g}"
    decimals = 0 if value == round(value) else max(_DIGITS - 1 - size, 0)
    return f"{value:,.{decimals}f}"
