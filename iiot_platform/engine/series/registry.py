"""Which computation belongs to which kind."""

from typing import Final

from iiot_platform.core import schema
from iiot_platform.engine.series.electrical import compute_electrical
from iiot_platform.engine.series.outcome import Computation
from iiot_platform.engine.series.signal import compute_signal, compute_valve
from iiot_platform.engine.series.state import compute_state
from iiot_platform.engine.series.vibration import compute_vibration

COMPUTATIONS: Final[dict[str, Computation]] = {
    schema.SIGNAL: compute_signal,
    schema.STATE: compute_state,
    schema.VIBRATION: compute_vibration,
    schema.VALVE: compute_valve,
    schema.ELECTRICAL: compute_electrical,
}
