"""The interface of every detector, and the factory that makes one from its settings."""

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from iiot_platform.analytics.batches import decode, encode
from iiot_platform.analytics.cusum import Cusum, CusumState
from iiot_platform.analytics.ewma import Ewma, EwmaState
from iiot_platform.analytics.parity import Parity, ParityState, parity_defaults
from iiot_platform.analytics.robust_z import RobustZ, RobustZState
from iiot_platform.analytics.rows import Bools, DetectorRows, Floats, Ints, Quantity
from iiot_platform.analytics.series import SeriesState
from iiot_platform.analytics.zscore import ZScore, ZScoreState
from iiot_platform.core.errors import AnalysisError
from iiot_platform.core.parameters import DetectorParameters

__all__ = [
    "Detector",
    "DetectorRows",
    "Quantity",
    "State",
    "decode_state",
    "detector",
    "encode_state",
]

State = SeriesState
S = TypeVar("S")


class Detector(Protocol[S]):
    """An anomaly detector over one series; its state is a value, and `update` is pure."""

    def init(self, parameters: DetectorParameters) -> S:
        """The state before the first value."""
        ...

    def update(self, state: S, ts: Ints, x: Floats, good: Bools) -> tuple[DetectorRows, S]:
        """The rows of n values in (ts, offset) order, and the state behind them.

        However the values are cut into batches, rows and final state are the same bit for bit.

        Args:
            state: the state before the first row; never changed.
            ts: event times in ms, int64[n].
            x: values, float64[n]; NaN and infinity are rows of bad quality.
            good: bool[n], False where the quality is not Good.
        """
        ...

    def model(self, state: S) -> tuple[float, float] | None:
        """Location and scale that the next value is tested against; None while learning."""
        ...


_DETECTORS: Final[dict[str, Callable[[DetectorParameters], Detector[Any]]]] = {
    "zscore": ZScore,
    "robust_z": RobustZ,
    "cusum": Cusum,
    "ewma": Ewma,
}
_STATES: Final[dict[str, type[State]]] = {
    "zscore": ZScoreState,
    "robust_z": RobustZState,
    "cusum": CusumState,
    "ewma": EwmaState,
}


def detector(
    parameters: DetectorParameters, *, quantity: Quantity = Quantity.SIGNAL
) -> Detector[Any]:
    """The detector that the settings name.

    Args:
        parameters: settings of the series.
        quantity: what the series measures; parity mode alone rounds by it.

    Raises:
        AnalysisError: parity was asked of a detector that the older scripts did not have.
    """
    if not parameters.parity:
        return _DETECTORS[parameters.detector](parameters)
    if parameters.detector != "zscore":
        raise AnalysisError(
            f"parity reproduces older scripts, which had the z-score alone, not "
            f"'{parameters.detector}'; set detector: zscore or parity: false"
        )
    return Parity(parity_defaults(parameters, quantity), quantity)


def encode_state(state: State) -> bytes:
    """A state as MessagePack; equal states give equal bytes."""
    return encode(state)


def decode_state(parameters: DetectorParameters, data: bytes) -> State:
    """The state that `encode_state` wrote.

    Raises:
        AnalysisError: the bytes are damaged or belong to another detector than the settings name.
    """
    return decode(data, ParityState if parameters.parity else _STATES[parameters.detector])
