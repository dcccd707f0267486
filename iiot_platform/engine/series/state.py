"""States: what holds, what ended, and for how long."""

import msgspec

from iiot_platform.analytics import running_time, states
from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import schema
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.series.outcome import Outcome, RunningTime, SeriesRows, TableRows


class _State(msgspec.Struct, frozen=True):
    """The open state, and what running time goes on from; each in its own encoding."""

    states: states.StateSeries
    running: running_time.Carry


_decoder = msgspec.msgpack.Decoder(_State)


def compute_state(
    key: SeriesKey, state: bytes | None, rows: SeriesRows, settings: LineSettings
) -> Outcome:
    """Rows of `states`, and the running time between them."""
    before = (
        _State(states.StateSeries(), running_time.Carry())
        if state is None
        else _decoder.decode(state)
    )
    parameters = settings.state(key)
    found, after = states.update(before.states, rows.ts, rows.state, rows.good)
    time, carry = running_time.update(
        before.running,
        rows.ts,
        rows.state,
        rows.good,
        parameters,
        schema.SUMMARY_INTERVAL_MS,
    )
    columns = {
        "value": rows.state,
        "previous_value": found.previous_value,
        "duration_s": found.duration_s,
    }
    return Outcome(
        msgspec.msgpack.encode(_State(after, carry)),
        (TableRows(schema.STATES.name, rows.ts, columns),),
        running=RunningTime(time.interval_start_ms, time.running_ms, time.known_ms),
    )
