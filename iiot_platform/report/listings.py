"""Tables of a page: where rows come from, the newest anomalies, and what happened."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from html import escape
from typing import Final

from iiot_platform.core import schema
from iiot_platform.core.clock import from_ms, hour_of, partition_key
from iiot_platform.core.pages import partition_page, run_page
from iiot_platform.report.content import Event, Flagged, LineReport
from iiot_platform.report.drawing import number

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3_600.0, 86_400.0
_SHOWN_OF_RUN: Final = 8


def listing(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[int] = ()
) -> str:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        headings: of its columns, as text.
        rows: cells as HTML.
        numbers: columns that are set flush right.
    """
    marks = [' class="n"' if i in numbers else "" for i in range(len(headings))]
    head = "".join(
        f"<th{mark}>{escape(name)}</th>" for name, mark in zip(headings, marks, strict=True)
    )
    body = "".join(
        f"<tr>{''.join(f'<td{m}>{cell}</td>' for cell, m in zip(row, marks, strict=True))}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def lineage(lines: Iterable[LineReport], dagster_url: str | None) -> str:
    """Which runs and settings the rows of every table come from."""
    headings = (
        *("line", "table", "rows", "newest row", "runs", "run of the newest row"),
        "settings",
    )
    rows = (
        (
            escape(line.line),
            escape(one.table),
            f"{one.rows:,}",
            moment(one.newest_ms),
            f"{one.runs:,}",
            _run(one.newest_run, dagster_url, whole=True),
            escape(", ".join(one.settings)),
        )
        for line in lines
        for one in line.lineage
    )
    return listing(headings, rows, numbers={2, 4})


def flagged(line: str, found: Iterable[Flagged], dagster_url: str | None) -> str:
    """The newest anomalies, each with its run and its hour's partition."""
    headings = ("time", "series", "quantity", "value", "mean", "z", "status", "hour", "run")
    rows = (
        (
            moment(one.ts_ms),
            escape(f"{one.machine} / {one.series}"),
            escape(one.quantity),
            number(one.value),
            number(one.mean),
            number(one.z_score),
            escape(one.status),
            _partition(line, one.table, hour_of(one.ts_ms), dagster_url),
            _run(one.run, dagster_url),
        )
        for one in found
    )
    return listing(headings, rows, numbers={3, 4, 5})


def events(line: str, found: Iterable[Event], dagster_url: str | None) -> str:
    """Settings that changed, hours that were computed again, and gaps."""
    headings = ("from", "until", "kind", "what", "hour", "run")
    rows = (
        (
            moment(one.at_ms),
            moment(one.until_ms) if one.until_ms > one.at_ms else "",
            escape(one.kind.replace("_", " ")),
            escape(one.text),
            _partition(line, schema.READINGS.name, one.hour, dagster_url),
            _run(one.run, dagster_url),
        )
        for one in found
    )
    return listing(headings, rows)


def tiles(shown: Iterable[tuple[str, str, bool]]) -> Iterator[str]:
    """Figures in boxes: name, value as text, and whether it is a reason to look."""
    yield '<dl class="tiles">'
    for name, value, alarm in shown:
        marked = ' class="alarm"' if alarm else ""
        yield f"<div><dt>{escape(name)}</dt><dd{marked}>{escape(value)}</dd></div>"
    yield "</dl>"


def _run(run: str, dagster_url: str | None, *, whole: bool = False) -> str:
    shown = escape(run if whole else run[:_SHOWN_OF_RUN])
    return _linked(
        f"<code>{shown}</code>", None if dagster_url is None else run_page(dagster_url, run)
    )


def _partition(line: str, table: str, hour: int, dagster_url: str | None) -> str:
    page = None if dagster_url is None else partition_page(dagster_url, line, table, hour)
    return _linked(escape(partition_key(hour)), page)


def _linked(shown: str, page: str | None) -> str:
    return shown if page is None else f'<a href="{escape(page)}" rel="noreferrer">{shown}</a>'


def moment(ts_ms: int) -> str:
    """A time as HTML; the script shows the reader's own zone."""
    at = from_ms(ts_ms)
    return f'<time data-ms="{ts_ms}" data-form="full">{at:%Y-%m-%d %H:%M:%S}</time>'


def age(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    if seconds < _DAY_S:
        return f"{seconds / _HOUR_S:.1f} h"
    return f"{seconds / _DAY_S:.1f} d"
