"""The z-score of a value against a moving window of accepted values."""

from dataclasses import dataclass

import msgspec
import numpy as np

from iiot_platform.analytics.moments import Floor, two_pass
from iiot_platform.analytics.rows import Bools, DetectorRows, Floats, Ints, bytes_of, floats_of
from iiot_platform.analytics.segments import by_acknowledgement
from iiot_platform.analytics.tally import Tally
from iiot_platform.core.parameters import DetectorParameters
from iiot_platform.core.quality import Status


class ZScoreState(msgspec.Struct, frozen=True, tag="zscore"):
    """What influences later rows of a z-score series.

    Attributes:
        size: window length that the state was made for.
        window: accepted values, oldest first, float64 bytes.
        streak: consecutive anomalies so far.
        reference: mean and std of the first full window since start or acknowledgement.
        off_reference: latched from a shift away from the reference to its acknowledgement.
        tally: flags given so far.
    """

    size: int
    window: bytes = b""
    streak: int = 0
    reference: tuple[float, float] | None = None
    off_reference: bool = False
    tally: Tally = Tally()


@dataclass(frozen=True)
class ZScore:
    """z = (x - mean) / std of the window; an anomaly where |z| > threshold."""

    parameters: DetectorParameters

    def init(self, parameters: DetectorParameters) -> ZScoreState:
        """The state before the first value."""
        return ZScoreState(size=parameters.window)

    def update(
        self, state: ZScoreState, ts: Ints, x: Floats, good: Bools
    ) -> tuple[DetectorRows, ZScoreState]:
        """The rows of values in time order, and the state behind them."""
        return by_acknowledgement(self.parameters, state, ts, x, good, self._scan)

    def _scan(
        self, state: ZScoreState, x: Floats, accepted: Bools, rows: DetectorRows
    ) -> ZScoreState:
        parameters, floor = self.parameters, Floor.of(self.parameters)
        window = list(floats_of(state.window))
        streak, reference, off = state.streak, state.reference, state.off_reference
        for row, value in enumerate(x.tolist()):
            full = len(window) == parameters.window
            if full:
                mean, std = two_pass(np.array(window))
                std = floor.apply(mean, std)
                rows.model_avg[row], rows.model_std[row] = mean, std
            if not accepted[row]:
                rows.status[row] = Status.BAD_QUALITY
            elif not full:
                rows.status[row] = Status.WARMING
                window.append(value)
            else:
                reference = reference or (mean, std)
                z = (value - mean) / std
                rows.z_score[row] = z
                if abs(z) > parameters.threshold:
                    rows.anomaly[row] = 1
                    streak += 1
                    if streak == parameters.relearn_after:
                        rows.status[row] = Status.RELEARNED
                        rows.shift_event[row] = 1
                        off = off or abs(value - reference[0]) > parameters.threshold * reference[1]
                        window, streak = [], 0
                else:
                    streak = 0
                    window = [*window[1:], value]
            rows.off_reference[row] = off
        return msgspec.structs.replace(
            state,
            window=bytes_of(window),
            streak=streak,
            reference=reference,
            off_reference=off,
        )
