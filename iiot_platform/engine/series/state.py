"""States: what holds, what ended, and for how long."""

import msgspec

from iiot_platform.analytics import states
from iiot_platform.analytics.state_time import Carry, time_in_state
from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core import schema
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.series.outcome import Outcome, RunningTime, SeriesRows, TableRows


class _State(msgspec.Struct, frozen=True):
    """The open state, and the reading whose time is not settled yet."""

    states: states.StateSeries
    time: Carry


_decoder = msgspec.msgpack.Decoder(_State)


def compute_state(
    key: SeriesKey, state: bytes | None, rows: SeriesRows, settings: LineSettings
) -> Outcome:
    """Rows of `states`, and the running time between them."""
    before = _State(states.StateSeries(), Carry()) if state is None else _decoder.decode(state)
    parameters = settings.state(key)
    found, after = states.update(before.states, rows.ts, rows.state, rows.good)
    time, carry = time_in_state(
        rows.ts, rows.state, rows.good, before.time, parameters.running, parameters.hold_s
    )
    columns = {
        "value": rows.state,
        "previous_value": found.previous_value,
        "duration_s": found.duration_s,
    }
    return Outcome(
        msgspec.msgpack.encode(_State(after, carry)),
        (TableRows(schema.STATES.name, rows.ts, columns),),
        changes=rows.ts[rows.good & (found.previous_value != rows.state)],
        running=RunningTime(*time),
    )
