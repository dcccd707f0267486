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
from iiot_platform.core.clock import MS_PER_S, from_ms
from iiot_platform.core.pages import run_page
from iiot_platform.report.content import Lineage, LineReport, Overview, Report, Section, Timeline
from iiot_platform.report.downsampling import COLUMNS
from iiot_platform.report.drawing import Canvas, number
from iiot_platform.report.sections import HOLD_S

_NOTES: Final = f"""\
<p>This page is not Grafana: it is drawn from the Parquet tables alone, without a database, and
needs no network. For history, alerts and zooming use the Grafana dashboards.</p>
<p>Green: mean of the detector's window ± threshold &times; standard deviation. Red: anomalies, in
numbers all of them. Purple: a level was learnt anew. A state holds until its next reading, at most
{HOLD_S:.0f} s. Lines are thinned to {COLUMNS} columns: of each column the first, the lowest, the
highest and the last value are kept, so no extreme is hidden; limits are those of a column's last
row. A line is broken where a series was silent.</p>"""
_PAIRS: Final = (2, 4)
"""Numbers of charts that look better in rows of two than of three."""
_STALE_S: Final = 60.0
_MOST_ALERTS: Final = 8
_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3_600.0, 86_400.0


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
    if len(report.lines) > 1:
        names = "".join(
            f'<a href="#{_anchor(i)}">{escape(line.line)}</a>'
            for i, line in enumerate(report.lines)
        )
        parts.append(f"<nav>{names}</nav>")
    canvas = Canvas(report.start_ms, report.end_ms)
    for index, line in enumerate(report.lines):
        parts += _line(canvas, line, index, report.made_ms)
    if not report.lines:
        parts.append("<p>Nothing has been computed yet.</p>")
    parts += ["<footer><h2>Lineage</h2>", *_lineage(report, dagster_url), _NOTES]
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
        f"<p>{period} up to {_moment(report.end_ms)}, made {_moment(report.made_ms)}"
        ' <span id="zone">(UTC)</span></p></header>'
    )


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


def _line(canvas: Canvas, line: LineReport, index: int, made_ms: int) -> Iterator[str]:
    yield f'<section class="line" id="{_anchor(index)}"><h2>{escape(line.line)}</h2>'
    yield from _tiles(line.overview, made_ms)
    for place, section in enumerate(line.sections):
        yield from _section(canvas, section, f"{_anchor(index)}-{place}")
    if not line.sections:
        yield "<p>No rows in this period.</p>"
    yield "</section>"


def _tiles(overview: Overview, made_ms: int) -> Iterator[str]:
    behind_s = None if overview.newest_ms is None else (made_ms - overview.newest_ms) / MS_PER_S
    fresh = "never" if behind_s is None else f"{age(behind_s)} old"
    stale = behind_s is None or behind_s > _STALE_S
    tiles = (
        ("newest reading", fresh, stale),
        ("readings", f"{overview.readings:,}", False),
        ("series", f"{overview.series:,}", False),
        ("running", _percent(overview.running_share), False),
        ("anomalies", f"{overview.anomalies:,}", overview.anomalies > 0),
        ("lag, mean", _seconds(overview.lateness_mean_s), False),
        ("lag, largest", _seconds(overview.lateness_max_s), False),
        ("set aside", f"{overview.quarantined:,}", overview.quarantined > 0),
    )
    yield '<dl class="tiles">'
    for name, value, alarm in tiles:
        marked = ' class="alarm"' if alarm else ""
        yield f"<div><dt>{name}</dt><dd{marked}>{value}</dd></div>"
    yield "</dl>"


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


def _lineage(report: Report, dagster_url: str | None) -> Iterator[str]:
    yield (
        '<div class="scroll"><table><thead><tr><th>line</th><th>table</th><th>rows</th>'
        "<th>newest row</th><th>runs</th><th>run of the newest row</th><th>settings</th></tr>"
        "</thead><tbody>"
    )
    for line in report.lines:
        for one in line.lineage:
            yield (
                f"<tr><td>{escape(line.line)}</td><td>{escape(one.table)}</td>"
                f"<td>{one.rows:,}</td><td>{_moment(one.newest_ms)}</td><td>{one.runs:,}</td>"
                f"<td>{_run(one, dagster_url)}</td>"
                f"<td>{escape(', '.join(one.settings))}</td></tr>"
            )
    yield "</tbody></table></div>"


def _run(lineage: Lineage, dagster_url: str | None) -> str:
    run = escape(lineage.newest_run)
    if dagster_url is None:
        return f"<code>{run}</code>"
    page = escape(run_page(dagster_url, lineage.newest_run))
    return f'<a href="{page}" rel="noreferrer"><code>{run}</code></a>'


def _anchor(index: int) -> str:
    return f"line-{index}"


def _moment(ts_ms: int) -> str:
    at = from_ms(ts_ms)
    return f'<time data-ms="{ts_ms}" data-form="full">{at:%Y-%m-%d %H:%M:%S}</time>'


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"


def _seconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{number(round(seconds, 3))} s"


def age(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    if seconds < _DAY_S:
        return f"{seconds / _HOUR_S:.1f} h"
    return f"{seconds / _DAY_S:.1f} d"
