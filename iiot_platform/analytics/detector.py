"""The interface of every detector, and the factory that makes one from its settings."""

from typing import Any, Protocol, TypeVar

import msgspec

from iiot_platform.analytics.rows import Bools, DetectorRows, Floats, Ints, Quantity
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

State = ZScoreState
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


def detector(
    parameters: DetectorParameters, *, quantity: Quantity = Quantity.SIGNAL
) -> Detector[Any]:
    """The detector that the settings name."""
    return ZScore(parameters)


def encode_state(state: State) -> bytes:
    """A state as MessagePack; equal states give equal bytes."""
    return msgspec.msgpack.encode(state)


def decode_state(parameters: DetectorParameters, data: bytes) -> State:
    """The state that `encode_state` wrote.

    Raises:
        AnalysisError: the bytes are damaged or belong to another detector than the settings name.
    """
    try:
        return msgspec.msgpack.decode(data, type=State)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise AnalysisError(f"a detector's state can not be read: {error}") from error
