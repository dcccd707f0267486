"""The frame of every detector: quality, acknowledgement, flags and alerts around its scan."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import msgspec
import numpy as np

from iiot_platform.analytics.batches import require_equal_length
from iiot_platform.analytics.rows import Bools, Bytes, DetectorRows, Floats, Int8s, Ints, usable
from iiot_platform.analytics.tally import Tally, alerts, ratios
from iiot_platform.core.clock import to_ms
from iiot_platform.core.errors import AnalysisError
from iiot_platform.core.parameters import DetectorParameters
from iiot_platform.core.quality import Status


class SeriesState(msgspec.Struct, frozen=True, kw_only=True):
    """What every detector's state holds.

    Attributes:
        size: window length that the state was made for.
        window: accepted values, oldest first, float64 bytes.
        streak: consecutive anomalies so far.
        reference: location and scale of the first full window; `None` until it is tested against.
        off_reference: latched from a shift to its acknowledgement.
        tally: what flags given so far mean for later rows.
    """

    size: int
    window: bytes = b""
    streak: int = 0
    reference: tuple[float, float] | None = None
    off_reference: bool = False
    tally: Tally = Tally()


class Scan(NamedTuple):
    """What a detector's own algorithm says about accepted values; float columns 0 if not tested."""

    model_avg: Floats
    model_std: Floats
    z_score: Floats
    anomaly: Int8s
    shift_event: Int8s
    off_reference: Int8s
    status: Bytes

    @classmethod
    def empty(cls, n: int) -> "Scan":
        """Columns of n rows, all zero: tested and normal."""
        return cls(
            np.zeros(n),
            np.zeros(n),
            np.zeros(n),
            np.zeros(n, np.int8),
            np.zeros(n, np.int8),
            np.zeros(n, np.int8),
            np.zeros(n, np.uint8),
        )


S = TypeVar("S", bound=SeriesState)


@dataclass(frozen=True)
class SeriesDetector(ABC, Generic[S]):
    """A detector over one series: `scan` is its algorithm, the rest is common to all."""

    parameters: DetectorParameters

    @abstractmethod
    def fresh(self, size: int) -> S:
        """The state before the first value, for a window of `size`."""

    @abstractmethod
    def scan(self, state: S, values: Floats) -> tuple[Scan, S]:
        """Test accepted values in order; the state behind them, its tally untouched."""

    @abstractmethod
    def model(self, state: S) -> tuple[float, float] | None:
        """Location and scale that the next value is tested against; None while learning."""

    @property
    def limit(self) -> float:
        """The limit of the statistic in `z_score`."""
        return self.parameters.threshold

    def init(self, parameters: DetectorParameters) -> S:
        """The state before the first value."""
        return self.fresh(parameters.window)

    def update(self, state: S, ts: Ints, x: Floats, good: Bools) -> tuple[DetectorRows, S]:
        """The rows of n values in time order, and the state behind them; see `Detector`.

        An acknowledgement at event time t takes effect at the first row with ts >= t, before its
        value is tested: the series starts anew there, as if nothing had come before.

        Raises:
            AnalysisError: columns of different lengths, or a state of another window length.
        """
        require_equal_length("a series", ts=ts, x=x, good=good)
        if state.size != self.parameters.window:
            raise AnalysisError(
                f"the state was made for a window of {state.size} values, the settings say "
                f"{self.parameters.window}; start the series anew with init()"
            )
        rows = DetectorRows.empty(len(x))
        x = np.asarray(x, np.float64)
        accepted = usable(x, good)
        for start, stop, acknowledged_ms in self._segments(state.tally.acknowledged_ms, ts):
            if acknowledged_ms is not None:
                tally = Tally(acknowledged_ms=acknowledged_ms)
                state = msgspec.structs.replace(self.fresh(state.size), tally=tally)
            state = self._segment(
                state, x[start:stop], accepted[start:stop], rows.part(start, stop)
            )
        return rows, state

    def shares(self, flags: bytes, scanned: Scan) -> tuple[Floats, bytes]:
        """The anomaly ratio before and at each accepted value (n + 1), and the flags to keep."""
        tested = scanned.status != Status.WARMING
        return ratios(flags, scanned.anomaly, tested, self.parameters.rate_window)

    def finish(self, rows: DetectorRows) -> None:
        """Give the output fields their last form."""

    def _segment(self, state: S, x: Floats, accepted: Bools, rows: DetectorRows) -> S:
        """Fill the rows between two acknowledgements."""
        scanned, after = self.scan(state, x[accepted])
        share, flags = self.shares(state.tally.flags, scanned)

        # A row of bad quality shows the model of the next accepted value, which saw the same
        # window, and the ratio and the latch of the one before.
        following = self.model(after) or (0.0, 0.0)
        behind = np.cumsum(accepted, dtype=np.int64)
        ahead = behind - accepted
        std = np.append(scanned.model_std, following[1])[ahead]
        modelled = std > 0
        rows.model_std[:] = std
        rows.model_avg[:] = np.append(scanned.model_avg, following[0])[ahead]
        rows.z_score_thresh[modelled] = self.limit
        rows.off_reference[:] = np.append(np.int8(state.off_reference), scanned.off_reference)[
            behind
        ]
        rows.z_score[accepted] = scanned.z_score
        rows.anomaly[accepted] = scanned.anomaly
        rows.shift_event[accepted] = scanned.shift_event
        rows.status[:] = Status.BAD_QUALITY
        rows.status[accepted] = scanned.status
        rows.anomaly_ratio[modelled] = share[behind][modelled]
        rows.alert[:], held = alerts(
            rows.anomaly, state.tally.refractory, self.parameters.refractory
        )
        self.finish(rows)
        tally = msgspec.structs.replace(state.tally, flags=flags, refractory=held)
        return msgspec.structs.replace(after, tally=tally)

    def _segments(self, done_ms: int | None, ts: Ints) -> list[tuple[int, int, int | None]]:
        """Start and stop row of each segment, and the acknowledgement that starts it."""
        starts: dict[int, int | None] = {0: None}
        for moment in sorted(to_ms(moment) for moment in self.parameters.acknowledged):
            reached = np.asarray(ts) >= moment
            if (done_ms is None or moment > done_ms) and reached.any():
                starts[int(np.argmax(reached))] = moment
        begins = sorted(starts)
        ends = [*begins[1:], len(ts)]
        return [(begin, end, starts[begin]) for begin, end in zip(begins, ends, strict=True)]
