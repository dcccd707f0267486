"""The z-score as the older per-message scripts computed it, to the last digit.

They used Python's `statistics.mean` and `stdev`, which add exact fractions. Running sums of
exact integers give the same without a pass over the window.
"""

from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from iiot_platform.analytics.exact_sums import ExactSums
from iiot_platform.analytics.rows import DetectorRows, Floats, Quantity, bytes_of, floats_of
from iiot_platform.analytics.series import Scan, SeriesDetector, SeriesState
from iiot_platform.core.parameters import DetectorParameters
from iiot_platform.core.quality import Status

ZERO_STD: Final = 0.001
"""What the scripts took for a std of 0."""
COMPLETING_FLAG: Final = b"\0"
"""The flag of the value that completes the window; the list begins with it."""
LARGEST_Z: Final = 1e300
"""Where a tiny std would make z infinite."""
OUTPUT_DIGITS: Final = 4
RATIO_DIGITS: Final = 3
VALUE_DIGITS: Final = {Quantity.VIBRATION_TOTAL: 5}
MEAN_DIGITS: Final = dict.fromkeys(set(Quantity) - {Quantity.ELECTRICAL}, 3)
Z_DIGITS: Final = MEAN_DIGITS | {Quantity.ELECTRICAL: 4}
THRESHOLD: Final = 2.0
WINDOWS: Final = {
    Quantity.SIGNAL: 50,
    Quantity.VALVE: 50,
    Quantity.VIBRATION: 100,
    Quantity.VIBRATION_TOTAL: 100,
    Quantity.ELECTRICAL: 25,
}
"""Length of window and flag list."""


def parity_defaults(parameters: DetectorParameters, quantity: Quantity) -> DetectorParameters:
    """The settings, with the scripts' own defaults where nothing was set."""
    length = WINDOWS[quantity]
    defaults = {"threshold": THRESHOLD, "window": length, "rate_window": length}
    missing = {k: v for k, v in defaults.items() if k not in parameters.model_fields_set}
    return parameters.model_copy(update=missing)


class ParityState(SeriesState, frozen=True, tag="parity"):
    """What influences later rows; one flag more is kept than the scripts' list holds.

    That one says whether a flag has arrived at a full list.
    """


@dataclass(frozen=True)
class Parity(SeriesDetector[ParityState]):
    """z = (|x| - |mean|) / std; no relearning and no floor. `parameters` hold the defaults.

    The scripts knew no quality; a value that is not Good or not finite is left out here as
    everywhere.
    """

    quantity: Quantity

    def init(self, parameters: DetectorParameters) -> ParityState:
        """The state before the first value."""
        return self.fresh(parity_defaults(parameters, self.quantity).window)

    def fresh(self, size: int) -> ParityState:
        """The state before the first value, for a window of `size`."""
        return ParityState(size=size)

    def model(self, state: ParityState) -> tuple[float, float] | None:
        """Mean, rounded, and std that the next value is tested against; None while learning."""
        window = floats_of(state.window).tolist()
        if len(window) < self.parameters.window:
            return None
        sums = ExactSums(window)
        for value in window:
            sums.add(value)
        return self._model(sums)

    def scan(self, state: ParityState, values: Floats) -> tuple[Scan, ParityState]:
        """Test accepted values in order."""
        size, threshold = self.parameters.window, self.parameters.threshold
        value_digits, z_digits = VALUE_DIGITS.get(self.quantity), Z_DIGITS[self.quantity]
        out = Scan.empty(len(values))
        read = values.tolist()
        if value_digits is not None:
            read = [round(value, value_digits) for value in read]
        window = floats_of(state.window).tolist()
        sums = ExactSums((*window, *read))
        for value in window:
            sums.add(value)
        oldest = 0
        model: tuple[float, float] | None = None
        for row, value in enumerate(read):
            if len(window) - oldest < size:
                out.status[row] = Status.WARMING
                window.append(value)
                sums.add(value)
                continue
            model = model or self._model(sums)
            mean, std = model
            z = (abs(value) - abs(mean)) / std
            z = round(min(max(z, -LARGEST_Z), LARGEST_Z), z_digits)
            out.model_avg[row], out.model_std[row], out.z_score[row] = mean, std, z
            if abs(z) > threshold:
                out.anomaly[row] = 1
            else:
                sums.add(value)
                sums.remove(window[oldest])
                window.append(value)
                oldest, model = oldest + 1, None
        return out, msgspec.structs.replace(state, window=bytes_of(window[oldest:]))

    def shares(self, flags: bytes, scanned: Scan) -> tuple[Floats, bytes]:
        """The ratio over the flag list; it stays 0 until a flag arrives at a full list."""
        length = self.parameters.rate_window
        tested = scanned.status != Status.WARMING
        if not tested.any() and not flags:
            return np.zeros(len(tested) + 1), flags
        before = np.frombuffer(flags or COMPLETING_FLAG, np.uint8)
        every = np.concatenate((before, scanned.anomaly[tested].astype(np.uint8)))
        count = np.concatenate(([0], np.cumsum(every, dtype=np.int64)))
        last = len(before) + np.concatenate(([0], np.cumsum(tested, dtype=np.int64)))
        first = np.maximum(last - length, 0)
        share = np.where(last > length, count[last] - count[first], 0) / length
        rounded = [round(value, RATIO_DIGITS) for value in share.tolist()]
        return np.array(rounded), every[-length - 1 :].tobytes()

    def finish(self, rows: DetectorRows) -> None:
        """Round as the scripts did."""
        for column in (rows.model_avg, rows.model_std, rows.z_score):
            column[:] = [round(value, OUTPUT_DIGITS) for value in column.tolist()]

    def _model(self, sums: ExactSums) -> tuple[float, float]:
        digits = MEAN_DIGITS.get(self.quantity)
        mean = sums.mean() if digits is None else round(sums.mean(), digits)
        return mean, sums.stdev() or ZERO_STD
