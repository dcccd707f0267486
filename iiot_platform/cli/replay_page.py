"""The page of a replay: pictures of what stands and what would be, without script or network."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final, NamedTuple

import numpy as np

from iiot_platform.core.clock import MS_PER_HOUR, from_ms
from iiot_platform.engine.comparison import Example, QuantityComparison, ShiftLoad, Verdict
from iiot_platform.engine.envelope import Envelope
from iiot_platform.engine.readings import Bools, Floats
from iiot_platform.engine.traces import TestedQuantity

_HEIGHT: Final = 200
_LANE: Final = 14
_LANES: Final = (
    ("both", "flagged by both"),
    ("added", "added by the candidate"),
    ("removed", "removed by the candidate"),
)
_AXIS_END: Final = 100 * (_HEIGHT - 8) / (_HEIGHT + _LANE * len(_LANES))
"""Where the label of the lowest value stands, in % of the picture's height."""
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5d6878;--line:#d8dee6;--paper:#fff;
--card:#f6f8fa;--value:#2b4a78;--standing:#8a94a3;--candidate:#d07a00;--added:#c62828;
--removed:#1b7f4b;--both:#6a7480}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa5b4;--line:#333c48;
--paper:#12161c;--card:#1a2028;--value:#8fb4ee;--standing:#7f8b9b;--candidate:#f0a030;
--added:#ff6b6b;--removed:#4cc38a;--both:#a0abba}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1rem;background:var(--paper);color:var(--ink);
font:16px/1.45 system-ui,sans-serif}
h1{font-size:1.35rem;margin:.2rem 0;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:0;overflow-wrap:anywhere}
p{margin:.3rem 0 1rem;color:var(--soft)}
section{background:var(--card);border:1px solid var(--line);border-radius:.5rem;
padding:.75rem;margin:0 0 1rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .5rem;text-align:right;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;padding-left:0;overflow-wrap:anywhere}
@media(max-width:30rem){table{font-size:.8rem}th,td{padding:.25rem .3rem}.wide{display:none}}
.counts{display:flex;flex-wrap:wrap;gap:.1rem 1rem;margin:.2rem 0 .5rem;font-size:.9rem;
color:var(--soft)}
.added{color:var(--added)}.removed{color:var(--removed)}
.plot{position:relative}
.plot,.times{margin-left:3.4rem}
svg{display:block;width:100%;height:15rem}
.axis{position:absolute;right:calc(100% + .3rem);font-size:.75rem;line-height:1;
color:var(--soft);white-space:nowrap}
.times{display:flex;justify-content:space-between;font-size:.75rem;color:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem;color:var(--soft);
margin:0 0 1rem}
.legend i{display:inline-block;width:1rem;height:.7rem;margin-right:.35rem;border-radius:2px}
details{margin-top:.5rem;font-size:.9rem}summary{cursor:pointer;color:var(--soft)}
"""


class Page(NamedTuple):
    """What the page shows; `envelopes` hold the quantities that have a picture."""

    line: str
    start_ms: int
    end_ms: int
    hours: int
    settings_version: str
    quantities: Sequence[QuantityComparison]
    envelopes: Mapping[TestedQuantity, Envelope]
    shifts: Sequence[ShiftLoad]


def page(shown: Page) -> str:
    """The page as one HTML document that needs nothing else."""
    title = f"What if: {shown.line}"
    added = sum(found.added for found in shown.quantities)
    removed = sum(found.removed for found in shown.quantities)
    pictured = [found for found in shown.quantities if found.quantity in shown.envelopes]
    rest = len(shown.quantities) - len(pictured)
    summary = (
        f"<p>{_time(shown.start_ms)} to {_time(shown.end_ms)} UTC, {shown.hours} hours, under"
        f" settings <code>{escape(shown.settings_version)}</code>: {added:,} anomalies added,"
        f" {removed:,} removed in {len(shown.quantities):,} series.</p>"
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        summary,
        _overview(shown.quantities),
        _shifts(shown.shifts),
        _legend(),
        *(_picture(found, shown.envelopes[found.quantity]) for found in pictured),
        f"<p>{rest:,} more series have no picture; they change least.</p>" if rest else "",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _overview(quantities: Sequence[QuantityComparison]) -> str:
    headings = ("series", "now", "would be", "added", "removed", "rows")
    rows = [
        (
            escape(found.quantity.label),
            *(
                f"{count:,}"
                for count in (
                    found.standing,
                    found.candidate,
                    found.added,
                    found.removed,
                    found.rows,
                )
            ),
        )
        for found in quantities
    ]
    return f"<section><h2>Anomalies</h2>{_table(headings, rows, 'rows')}</section>"


def _shifts(shifts: Sequence[ShiftLoad]) -> str:
    headings = ("shift", "alarm minutes", "would be", "alerts", "would be")
    rows = [
        (
            f"{load.shift.day} {escape(load.shift.name)}",
            *(f"{count:,}" for count in load[1:]),
        )
        for load in shifts
    ]
    return (
        f"<section><h2>Shifts</h2>{_table(headings, rows)}"
        "<p>An alarm minute has at least one alert: a flagged row outside the refractory points"
        " of the alert before.</p></section>"
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], wide: str = "") -> str:
    """A table of cells that are escaped already; a phone leaves the column `wide` out."""
    marks = [' class="wide"' if heading == wide else "" for heading in headings]

    def row(tag: str, cells: Sequence[str]) -> str:
        parts = (f"<{tag}{mark}>{cell}</{tag}>" for mark, cell in zip(marks, cells, strict=True))
        return f"<tr>{''.join(parts)}</tr>"

    body = "".join(row("td", cells) for cells in rows)
    return f'<div class="scroll"><table>{row("th", headings)}{body}</table></div>'


def _legend() -> str:
    entries = [
        ("value", "value, lowest to highest"),
        ("standing", "normal now"),
        ("candidate", "normal under the candidate"),
        *_LANES,
    ]
    return '<div class="legend">{}</div>'.format(
        "".join(
            f'<span><i style="background:var(--{name})"></i>{words}</span>'
            for name, words in entries
        )
    )


def _picture(found: QuantityComparison, envelope: Envelope) -> str:
    label = escape(found.quantity.label)
    counts = (
        f"<span>{found.standing:,} now, {found.candidate:,} would be</span>"
        f'<span class="added">{found.added:,} added</span>'
        f'<span class="removed">{found.removed:,} removed</span>'
        + (f"<span>{found.learning:,} rows learnt from</span>" if found.learning else "")
    )
    low, high = envelope.span
    examples = [
        *(("added", example) for example in found.examples_added),
        *(("removed", example) for example in found.examples_removed),
    ]
    middle = (envelope.start_ms + envelope.end_ms) // 2
    one_day = envelope.end_ms - envelope.start_ms <= MS_PER_HOUR * 24
    return (
        f"<section><h2>{label}</h2>"
        f'<div class="counts">{counts}</div><div class="plot">{_svg(envelope, label)}'
        f'<span class="axis" style="top:0">{high:.5g}</span>'
        f'<span class="axis" style="top:{_AXIS_END:.1f}%">{low:.5g}</span></div>'
        '<div class="times">'
        + "".join(
            f"<span>{_tick(ts, short=one_day)}</span>"
            for ts in (envelope.start_ms, middle, envelope.end_ms)
        )
        + f"</div>{_examples(examples)}</section>"
    )


def _examples(examples: Sequence[tuple[str, Example]]) -> str:
    if not examples:
        return ""
    rows = [
        (
            f'<span class="{word}">{word}</span> {_time(example.ts, seconds=True)}',
            f"{example.value:.6g}",
            _verdict(example.standing),
            _verdict(example.candidate),
        )
        for word, example in examples
    ]
    headings = ("first examples", "value", "z now", "z would be")
    return f"<details><summary>first examples</summary>{_table(headings, rows)}</details>"


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return "no row"
    return f"{verdict.z_score:.2f} / {verdict.threshold:g}"


def _svg(envelope: Envelope, label: str) -> str:
    """Bands, values and flags; stretched to the width, so it holds shapes alone and no text."""
    low, high = envelope.span
    height = _HEIGHT + _LANE * len(_LANES)
    scale = _HEIGHT / (high - low)

    def y(values: Floats) -> Floats:
        return np.clip((high - values) * scale, 0, _HEIGHT)

    shapes = []
    for side, opacity in (("standing", 0.28), ("candidate", 0.22)):
        bottom, top = envelope.bands[side]
        shapes.append(
            f'<path d="{_area(y(top), y(bottom), ~np.isnan(top))}" fill="var(--{side})"'
            f' fill-opacity="{opacity}" stroke="var(--{side})" stroke-opacity=".8"'
            ' vector-effect="non-scaling-stroke"/>'
        )
    filled = envelope.filled
    shapes.append(
        f'<path d="{_area(y(envelope.high), y(envelope.low), filled)}" fill="var(--value)"'
        ' stroke="var(--value)" stroke-linejoin="round" stroke-linecap="round"'
        ' vector-effect="non-scaling-stroke"/>'
    )
    for lane, (name, _) in enumerate(_LANES):
        top_of_lane = _HEIGHT + lane * _LANE + 3
        marks = np.flatnonzero(getattr(envelope, name)).tolist()
        path = "".join(f"M{x + 0.5},{top_of_lane}v{_LANE - 4}" for x in marks)
        shapes.append(
            f'<path d="{path}" stroke="var(--{name})" stroke-width="3"'
            ' vector-effect="non-scaling-stroke"/>'
        )
    return (
        f'<svg viewBox="0 0 {envelope.slices} {height}" preserveAspectRatio="none" role="img"'
        f' aria-label="{label}: values, limits and flags over time">{"".join(shapes)}</svg>'
    )


def _area(top: Floats, bottom: Floats, filled: Bools) -> str:
    """The area between two lines; a few empty slices are bridged, a pause shows as a gap."""
    places = np.flatnonzero(filled)
    if not len(places):
        return ""
    typical = max(float(np.median(np.diff(places))) if len(places) > 1 else 1.0, 1.0)
    stretches = np.split(places, np.flatnonzero(np.diff(places) > 3 * typical) + 1)
    paths = []
    for stretch in stretches:
        upper = [f"{x + 0.5:g},{top[x]:.1f}" for x in stretch.tolist()]
        lower = [f"{x + 0.5:g},{bottom[x]:.1f}" for x in reversed(stretch.tolist())]
        paths.append(f"M{'L'.join(upper + lower)}Z")
    return "".join(paths)


def _tick(ts_ms: int, *, short: bool) -> str:
    """A time below a picture: what a phone has room for three times."""
    return from_ms(ts_ms).strftime("%H:%M" if short else "%m-%d %H:%M")


def _time(ts_ms: int, *, seconds: bool = False) -> str:
    return from_ms(ts_ms).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")
