"""A report as one HTML file: no request leaves it, and only its own script may run in it."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import Final

from iiot_platform.alerts.evaluation import Alert
from iiot_platform.alerts.message import Places, look_at, summary
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.report.content import LineReport, Overview, Report, Section, Timeline
from iiot_platform.report.downsampling import COLUMNS
from iiot_platform.report.drawing import Canvas, number
from iiot_platform.report.flagged import NEWEST
from iiot_platform.report.listings import age, events, flagged, lineage, moment, tiles
from iiot_platform.report.platform import platform
from iiot_platform.report.sections import HOLD_S

GRAFANA_ALONE: Final = ("Pool of workers", "Runs of the last hour", "Daemons", "Processes")
"""Panels of Grafana's that this page lacks: what they show is asked of processes, not of files."""
_NOTES: Final = f"""\
<p>This page is not Grafana: it is drawn from the Parquet tables, the ledger and what the buffer
says of itself, without a database, and needs no network. Grafana alone has history, zooming, marks
of events in the charts, and these panels of the platform: {"; ".join(GRAFANA_ALONE)}.</p>
<p>Green: mean of the detector's window ± threshold &times; standard deviation. Red: anomalies, in
numbers all of them. Purple: a level was learnt anew. A state holds until its next reading, at most
{HOLD_S:.0f} s. Lines are thinned to {COLUMNS} columns: of each column the first, the lowest, the
highest and the last value are kept, so no extreme is hidden; limits are those of a column's last
row. A line is broken where a series was silent.</p>"""
_PAIRS: Final = (2, 4)
"""Numbers of charts that look better in rows of two than of three."""
_STALE_S: Final = 60.0
_MOST_ALERTS: Final = 8


def render(
    report: Report,
    *,
    firing: Sequence[Alert] | None = None,
    dagster_url: str | None = None,
    refresh_s: float = 0.0,
) -> str:
    """The page of a report.

    Args:
        report: what it shows.
        firing: alerts that fire now; None where nobody evaluates them.
        dagster_url: address of the Dagster UI, for links to runs; None: no links.
        refresh_s: how often the page asks its server for a newer one; 0: never.
    """
    period = f'data-start="{report.start_ms}" data-end="{report.end_ms}"'
    parts = [f"<main {period}>", *_head(report)]
    if firing is not None:
        parts += _alerts(firing, dagster_url)
    parts.append(f"<nav>{''.join(_contents(report))}</nav>")
    canvas = Canvas(report.start_ms, report.end_ms)
    for index, line in enumerate(report.lines):
        parts += _line(canvas, line, index, report.made_ms, dagster_url)
    if not report.lines:
        parts.append("<p>Nothing has been computed yet.</p>")
    if report.platform is not None:
        parts += platform(report.platform)
    parts += ["<footer><h2>Lineage</h2>", lineage(report.lines, dagster_url), _NOTES]
    parts.append("</footer></main>")
    return document("\n".join(parts), refresh_s=refresh_s)


def waiting(problem: str, *, refresh_s: float = 0.0) -> str:
    """A page that says why there is no report yet."""
    text = f"<main><h1>No report yet</h1><p>{escape(problem)}</p></main>"
    return document(text, refresh_s=refresh_s)


def document(body: str, *, refresh_s: float) -> str:
    """A whole page around its body."""
    script, style = _resource("page.js"), _resource("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    connect = "'self'" if refresh_s else "'none'"
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline';"
        f" connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    refresh = f' data-refresh="{round(refresh_s * MS_PER_S)}"' if refresh_s else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>Plant report</title>\n<style>{style}</style></head>\n"
        f"<body{refresh}>{body}\n<script>{script}</script></body></html>\n"
    )


@cache
def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _head(report: Report) -> Iterator[str]:
    period = age((report.end_ms - report.start_ms) / MS_PER_S)
    yield "<header><h1>Plant report</h1>"
    yield (
        f"<p>{period} up to {moment(report.end_ms)}, made {moment(report.made_ms)}"
        ' <span id="zone">(UTC)</span></p></header>'
    )


def _contents(report: Report) -> Iterator[str]:
    if len(report.lines) > 1:
        for index, line in enumerate(report.lines):
            yield f'<a href="#{_anchor(index)}">{escape(line.line)}</a>'
    if report.platform is not None:
        yield '<a href="#platform">Platform</a>'


def _alerts(firing: Sequence[Alert], dagster_url: str | None) -> Iterator[str]:
    """What fires, the newest first."""
    if not firing:
        yield '<p class="alerts">No alert fires.</p>'
        return
    yield f'<section class="alerts"><h2 class="alarm">Alerts that fire: {len(firing)}</h2><ul>'
    for alert in sorted(firing, key=lambda one: one.fired_ms, reverse=True)[:_MOST_ALERTS]:
        pages = look_at(alert.key, alert.evidence, Places("", dagster_url))
        links = "".join(
            f' <a href="{escape(pages[name])}" rel="noreferrer">{name}</a>'
            for name in ("run", "partition")
            if name in pages
        )
        yield f"<li>{escape(summary(alert))}{links}</li>"
    if len(firing) > _MOST_ALERTS:
        yield f"<li>and {len(firing) - _MOST_ALERTS} more: <code>iiot alerts list</code></li>"
    yield "</ul></section>"


def _line(
    canvas: Canvas, line: LineReport, index: int, made_ms: int, dagster_url: str | None
) -> Iterator[str]:
    yield f'<section class="line" id="{_anchor(index)}"><h2>{escape(line.line)}</h2>'
    yield from _tiles(line.overview, made_ms)
    for place, section in enumerate(line.sections):
        yield from _section(canvas, section, f"{_anchor(index)}-{place}")
    if not line.sections:
        yield "<p>No rows in this period.</p>"
    if line.flagged:
        title = f"Newest anomalies, at most {NEWEST}"
        text = flagged(line.line, line.flagged, dagster_url)
        yield _folded(f"{_anchor(index)}-flagged", title, text)
    if line.events:
        text = events(line.line, line.events, dagster_url)
        yield _folded(f"{_anchor(index)}-events", "Settings, reruns and gaps", text)
    yield "</section>"


def _folded(name: str, title: str, text: str) -> str:
    return f'<details open id="{name}"><summary><h3>{title}</h3></summary>{text}</details>'


def _tiles(overview: Overview, made_ms: int) -> Iterator[str]:
    behind_s = None if overview.newest_ms is None else (made_ms - overview.newest_ms) / MS_PER_S
    fresh = "never" if behind_s is None else f"{age(behind_s)} old"
    stale = behind_s is None or behind_s > _STALE_S
    yield from tiles(
        (
            ("newest reading", fresh, stale),
            ("readings", f"{overview.readings:,}", False),
            ("series", f"{overview.series:,}", False),
            ("running", _percent(overview.running_share), False),
            ("anomalies", f"{overview.anomalies:,}", overview.anomalies > 0),
            ("lateness, mean", _seconds(overview.lateness_mean_s), False),
            ("lateness, largest", _seconds(overview.lateness_max_s), False),
            ("set aside", f"{overview.quarantined:,}", overview.quarantined > 0),
            ("covered", f"{overview.covered_share:.1%}", overview.covered_share < 1),
        )
    )


def _section(canvas: Canvas, section: Section, name: str) -> Iterator[str]:
    yield f'<details open id="{name}"><summary><h3>{escape(section.title)}</h3></summary>'
    for group in section.groups:
        if group.title:
            yield f"<h4>{escape(group.title)}</h4>"
        beside = sum(1 for chart in group.charts if not getattr(chart, "wide", True))
        pairs = " pairs" if beside in _PAIRS else ""
        yield f'<div class="charts{pairs}">'
        for chart in group.charts:
            if isinstance(chart, Timeline):
                yield canvas.timeline(chart)
            else:
                yield canvas.chart(chart)
        yield "</div>"
    yield "</details>"


def _anchor(index: int) -> str:
    return f"line-{index}"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"


def _seconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{number(round(seconds, 3))} s"
