"""Values of the rules that depend on the state of processes at the moment."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from iiot_platform.alerts.lifecycle import AlertKey, Samples
from iiot_platform.config.alerts import AlertSettings
from iiot_platform.engine.status import BufferState, LineStatus

BUFFER: Final = "buffer"
_CONNECTED: Final = "connected"


def status_samples(
    line: LineStatus, buffer: BufferState, source: str, settings: AlertSettings
) -> list[Samples]:
    """One value of each rule of a line.

    Args:
        line: what the ledger and the log say of the line.
        buffer: what the buffer says of itself; one that never ran says nothing.
        source: name of the source that brings the line.
        settings: rules in force.
    """
    found = []
    for name, series, value in _values(line, buffer, source):
        rule = settings.rule(name, line.line, series)
        if rule.enabled:
            key, values = AlertKey(line.line, name, series), np.array([value])
            detail = _trouble(buffer, series) if name == "capture_down" else ""
            found.append(Samples(key, rule, values, detail=detail))
    return found


def _values(line: LineStatus, buffer: BufferState, source: str) -> Iterator[tuple[str, str, float]]:
    yield "line_lag", "", line.lag_s
    for name, sink in line.sinks.items():
        yield "sink_backlog", f"sink/{name}", float(sink.pending + sink.rejected)
    if buffer.written_ms is not None:
        down = not buffer.running or bool(buffer.storage_error)
        yield "capture_down", BUFFER, float(down)
        # a buffer that does not run says nothing of its sources
        if buffer.running and source in buffer.sources:
            yield "capture_down", f"source/{source}", float(not connected(buffer, source))


def connected(buffer: BufferState, source: str) -> bool:
    """True where the buffer says that a source delivers."""
    return buffer.sources.get(source, "").partition(":")[0] == _CONNECTED


def _trouble(buffer: BufferState, series: str) -> str:
    """What the buffer says of what is down."""
    if series == BUFFER:
        if not buffer.running:
            return "the buffer does not run"
        return buffer.storage_error or "the buffer runs and stores"
    name = series.partition("/")[2]
    return f"source {name} is {buffer.sources.get(name, 'unknown')}"
