"""Values of the rules that depend on the state of processes at the moment."""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from iiot_platform.alerts.lifecycle import AlertKey, DropCount, Samples
from iiot_platform.config.alerts import AlertSettings
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.engine.status import BufferState, LineStatus

BUFFER: Final = "buffer"
_CONNECTED: Final = "connected"


def status_samples(
    line: LineStatus,
    buffer: BufferState,
    source: str,
    settings: AlertSettings,
    drops: Mapping[str, DropCount] | None = None,
) -> list[Samples]:
    """One value of each rule of a line.

    Args:
        line: what the ledger and the log say of the line.
        buffer: what the buffer says of itself; one that never ran says nothing.
        source: name of the source that brings the line.
        settings: rules in force.
        drops: per series of `messages_dropped` what was dropped.
    """
    found = []
    lost = () if drops is None else _lost(drops)
    for name, series, value, detail in (*_values(line, buffer, source), *lost):
        rule = settings.rule(name, line.line, series)
        if rule.enabled:
            key, values = AlertKey(line.line, name, series), np.array([value])
            found.append(Samples(key, rule, values, detail=detail))
    return found


def drops_until(
    before: Mapping[str, DropCount],
    now_ms: int,
    line: str,
    buffer: BufferState,
    source: str,
    settings: AlertSettings,
) -> dict[str, DropCount]:
    """What was dropped up to now, per series of `messages_dropped`.

    Counts that are seen for the first time are where one begins: nobody knows since when. Where
    nothing is said, as by a buffer that does not run, nothing changes.
    """
    if not buffer.running or source not in buffer.counts:
        return dict(before)
    said = buffer.counts[source]
    counts = {
        f"source/{source}": said.get("qos0_dropped"),
        f"broker/{source}": said.get("broker_dropped"),
    }
    found = {series: before[series] for series in counts.keys() & before.keys()}
    for series, count in counts.items():
        if count is None:
            continue
        known = before.get(series, DropCount(count))
        # a lower count is that of a process that was started anew
        new = count - known.count if count >= known.count else count
        quiet_ms = settings.rule("messages_dropped", line, series).window_s * MS_PER_S
        if new:
            found[series] = DropCount(count, known.dropped + new, now_ms)
        elif now_ms - known.at_ms >= quiet_ms:
            found[series] = DropCount(count)
        else:
            found[series] = DropCount(count, known.dropped, known.at_ms)
    return found


def _lost(drops: Mapping[str, DropCount]) -> Iterator[tuple[str, str, float, str]]:
    for series, one in drops.items():
        place, _, name = series.partition("/")
        why = (
            f"the broker of source {name} has dropped {one.dropped}, for this or another client:"
            " a queue of it was full"
            if place == "broker"
            else f"{one.dropped} of QoS 0 of source {name} were dropped: they came faster than the"
            " disk takes them"
        )
        yield "messages_dropped", series, float(one.dropped), why


def _values(
    line: LineStatus, buffer: BufferState, source: str
) -> Iterator[tuple[str, str, float, str]]:
    """Rule, series, value, and what else is to be said of it."""
    yield "line_lag", "", line.lag_s, ""
    for name, sink in line.sinks.items():
        yield "sink_backlog", f"sink/{name}", float(sink.pending + sink.rejected), ""
    if buffer.written_ms is not None:
        down = not buffer.running or bool(buffer.storage_error)
        yield "capture_down", BUFFER, float(down), _trouble(buffer)
        # a disk that nobody looks at says nothing
        if buffer.running and buffer.disk is not None:
            yield "disk_low", BUFFER, float(buffer.disk), buffer.disk_message
        # a buffer that does not run says nothing of its sources
        if buffer.running and source in buffer.sources:
            away = not connected(buffer, source)
            said = f"source {source} is {buffer.sources[source]}"
            yield "capture_down", f"source/{source}", float(away), said


def connected(buffer: BufferState, source: str) -> bool:
    """True where the buffer says that a source delivers."""
    return buffer.sources.get(source, "").partition(":")[0] == _CONNECTED


def _trouble(buffer: BufferState) -> str:
    """What the buffer says of itself."""
    if not buffer.running:
        return "the buffer does not run"
    return buffer.storage_error or "the buffer runs and stores"
