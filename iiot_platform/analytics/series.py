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
        x = np.asarray(x, np.float64)
        accepted = usable(x, good)
        parts = []
        for start, stop, acknowledged_ms in self._segments(state.tally.acknowledged_ms, ts):
            if acknowledged_ms is not None:
                tally = Tally(acknowledged_ms=acknowledged_ms)
                state = msgspec.structs.replace(self.fresh(state.size), tally=tally)
            rows, state = self._segment(state, x[start:stop], accepted[start:stop])
            parts.append(rows)
        if len(parts) == 1:
            return parts[0], state
        columns = zip(*parts, strict=True)
        return DetectorRows._make(np.concatenate(column) for column in columns), state

    def shares(self, flags: bytes, scanned: Scan) -> tuple[Floats, bytes]:
        """The anomaly ratio before and at each accepted value (n + 1), and the flags to keep."""
        tested = scanned.status != Status.WARMING
        return ratios(flags, scanned.anomaly, tested, self.parameters.rate_window)

    def finish(self, rows: DetectorRows) -> None:
        """Give the output fields their last form."""

    def _segment(self, state: S, x: Floats, accepted: Bools) -> tuple[DetectorRows, S]:
        """The rows between two acknowledgements."""
        scanned, after = self.scan(state, x if accepted.all() else x[accepted])
        share, flags = self.shares(state.tally.flags, scanned)
        if len(scanned.status) == len(x):
            scan, share = scanned, share[1:]
        else:
            scan, share = self._spread(state, scanned, after, accepted), share[np.cumsum(accepted)]
        modelled = scan.model_std > 0
        alert, held = alerts(scan.anomaly, state.tally.refractory, self.parameters.refractory)
        rows = DetectorRows(
            anomaly=scan.anomaly,
            anomaly_ratio=np.where(modelled, share, 0.0),
            model_avg=scan.model_avg,
            model_std=scan.model_std,
            z_score=scan.z_score,
            z_score_thresh=np.where(modelled, self.limit, 0.0),
            shift_event=scan.shift_event,
            off_reference=scan.off_reference,
            status=scan.status,
            alert=alert,
        )
        self.finish(rows)
        tally = msgspec.structs.replace(state.tally, flags=flags, refractory=held)
        return rows, msgspec.structs.replace(after, tally=tally)

    def _spread(self, before: S, scanned: Scan, after: S, accepted: Bools) -> Scan:
        """The scan of accepted values with rows of bad quality between them.

        Such a row shows the model of the next accepted value, which saw the same window, and the
        latch of the one before.
        """
        following = self.model(after) or (0.0, 0.0)
        behind = np.cumsum(accepted, dtype=np.int64)
        ahead = behind - accepted
        latch = np.concatenate(([np.int8(before.off_reference)], scanned.off_reference))
        spread = Scan.empty(len(accepted))
        spread.model_avg[:] = np.concatenate((scanned.model_avg, following[:1]))[ahead]
        spread.model_std[:] = np.concatenate((scanned.model_std, following[1:]))[ahead]
        spread.z_score[accepted] = scanned.z_score
        spread.anomaly[accepted] = scanned.anomaly
        spread.shift_event[accepted] = scanned.shift_event
        spread.off_reference[:] = latch[behind]
        spread.status[:] = Status.BAD_QUALITY
        spread.status[accepted] = scanned.status
        return spread

    def _segments(self, done_ms: int | None, ts: Ints) -> list[tuple[int, int, int | None]]:
        """Start and stop row of each segment, and the acknowledgement that starts it."""
        if not self.parameters.acknowledged:
            return [(0, len(ts), None)]
        starts: dict[int, int | None] = {0: None}
        for moment in sorted(to_ms(moment) for moment in self.parameters.acknowledged):
            reached = np.asarray(ts) >= moment
            if (done_ms is None or moment > done_ms) and reached.any():
                starts[int(np.argmax(reached))] = moment
        begins = sorted(starts)
        ends = [*begins[1:], len(ts)]
        return [(begin, end, starts[begin]) for begin, end in zip(begins, ends, strict=True)]
