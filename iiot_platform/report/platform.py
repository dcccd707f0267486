"""How the platform itself does: what the buffer's status file, the log and the ledger say now."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Final

from iiot_platform.core.clock import MS_PER_S
from iiot_platform.engine.status import BufferState, LineStatus, PlantStatus
from iiot_platform.report.drawing import number
from iiot_platform.report.listings import age, listing, tiles

_GB: Final = 1e9
_SCARCE: Final = 0.1
_CONNECTED: Final = "connected"
_COUNTED: Final = {
    "waiting": "unacknowledged",
    "connects": "connections",
    "gaps": "gaps",
    "sessions_lost": "sessions lost",
    "qos0_dropped": "QoS 0 dropped",
    "broker_dropped": "dropped by broker",
    "unmatched": "unmatched",
    "not_good": "not good",
    "from_history": "from history",
    "rebirths": "rebirths asked for",
}
"""What is told of a source's counts, and how it is called."""


def platform(status: PlantStatus) -> Iterator[str]:
    """The section of a page."""
    buffer, lines = status.buffer, sorted(status.lines, key=lambda one: one.line)
    yield '<section class="line" id="platform"><h2>Platform</h2>'
    yield "<p>At this moment; its history stands in Grafana.</p>"
    yield from tiles(_buffer(buffer, status.at_ms))
    for warning in (buffer.storage_error, *buffer.warnings):
        if warning:
            yield f'<p class="alarm">{escape(warning)}</p>'
    for title, text in (
        ("Sources", _sources(buffer)),
        ("From the log to the tables", _lines(lines, status.at_ms)),
        ("Databases", _databases(lines)),
        ("Rows that stand", _stand(lines)),
    ):
        if text:
            yield f'<details open id="platform-{title.split()[0].lower()}">'
            yield f"<summary><h3>{title}</h3></summary>{text}</details>"
    yield "</section>"


def _buffer(buffer: BufferState, at_ms: int) -> Iterator[tuple[str, str, bool]]:
    if buffer.written_ms is None:
        yield "buffer", "never ran here", True
        return
    silent = f"silent for {age((at_ms - buffer.written_ms) / MS_PER_S)}"
    yield "buffer", "running" if buffer.running else silent, not buffer.running
    yield "not yet sealed", f"{buffer.hot_rows:,}", False
    for name, found in (("commit", buffer.commits), ("seal", buffer.seals)):
        yield f"{name}s", f"{found.get('count', 0):,}", False
        yield f"{name}, mean", _milliseconds(found.get("mean_s")), False
        yield f"{name}, longest", _milliseconds(found.get("longest_s")), False
    yield "sent twice, dropped", f"{buffer.redeliveries_dropped:,}", False
    if buffer.free_bytes is not None and buffer.size_bytes:
        share = buffer.free_bytes / buffer.size_bytes
        yield "free disk", f"{buffer.free_bytes / _GB:,.1f} GB ({share:.0%})", share < _SCARCE


def _sources(buffer: BufferState) -> str:
    told = [what for what in _COUNTED if any(what in found for found in buffer.counts.values())]
    rows = (
        (
            escape(name),
            _state(state),
            *(_count(buffer.counts.get(name, {}), what) for what in told),
        )
        for name, state in buffer.sources.items()
    )
    headings = ("source", "state", *(_COUNTED[what] for what in told))
    return listing(headings, rows, numbers=range(2, len(headings))) if buffer.sources else ""


def _state(state: str) -> str:
    shown = escape(state)
    return shown if state == _CONNECTED else f'<span class="alarm">{shown}</span>'


def _count(counts: Mapping[str, int], what: str) -> str:
    return f"{counts[what]:,}" if what in counts else ""


def _lines(lines: Iterable[LineStatus], at_ms: int) -> str:
    headings = (
        *("line", "messages/s", "captured", "in the tables", "lag, rows", "lag", "live batches"),
        *("batch p50", "p95", "last batch", "anomalies", "set aside", "late", "duplicates"),
        "dirty hours",
    )
    rows = []
    for one in lines:
        batches = one.batches
        last = batches.last_ms
        rows.append(
            (
                escape(one.line),
                number(round(one.rate_per_s, 1)),
                f"{one.captured:,}",
                f"{one.consumed:,}",
                f"{one.lag_rows:,}",
                age(one.lag_s),
                f"{batches.count:,}",
                _milliseconds(batches.seconds_p50),
                _milliseconds(batches.seconds_p95),
                "never" if last is None else f"{age((at_ms - last) / MS_PER_S)} ago",
                f"{one.anomalies:,}",
                f"{sum(one.quarantined.values()):,}",
                f"{one.late_rows:,}",
                f"{one.duplicates:,}",
                f"{len(one.dirty):,}",
            )
        )
    return listing(headings, rows, numbers=range(1, len(headings))) if rows else ""


def _databases(lines: Iterable[LineStatus]) -> str:
    headings = ("line", "database", "pending", "refused", "failures", "said")
    rows = [
        (
            escape(line.line),
            escape(name),
            f"{sink.pending:,}",
            f"{sink.rejected:,}",
            f"{sink.failures:,}",
            escape(sink.message),
        )
        for line in lines
        for name, sink in line.sinks.items()
    ]
    return listing(headings, rows, numbers={2, 3, 4}) if rows else ""


def _stand(lines: Iterable[LineStatus]) -> str:
    counted: Counter[str] = Counter()
    for line in lines:
        counted.update(line.rows)
    shown = (
        (table.replace("_", " "), f"{count:,}", False) for table, count in sorted(counted.items())
    )
    return "".join(tiles(shown)) if counted else ""


def _milliseconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{number(round(seconds * MS_PER_S, 1))} ms"
