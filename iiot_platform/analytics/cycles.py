"""Machine cycles of an electrical device: found in its readings, measured when they close."""

from typing import Final, NamedTuple

import msgspec
import numpy as np

from iiot_platform.analytics import cycle_measures as measures
from iiot_platform.analytics.batches import decode, encode, require_equal_length
from iiot_platform.analytics.rows import Bools, Floats, Ints, bytes_of, floats_of, usable
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.core.errors import AnalysisError
from iiot_platform.core.parameters import CycleParameters
from iiot_platform.core.quality import Status

PHASES: Final = 3


class OpenCycle(msgspec.Struct, frozen=True, tag="cycle"):
    """The samples of a cycle that has not closed.

    Attributes:
        ts: their event times in ms, int64 bytes, little-endian.
        current: their currents, float64[n, 3] bytes, little-endian.
        overrun: the run has been longer than its maximum: all its parts are truncated.
    """

    ts: bytes = b""
    current: bytes = b""
    overrun: bool = False


class Cycle(NamedTuple):
    """One closed cycle; arrays have one value per phase.

    Attributes:
        ts: event time of the reading that closed it, ms.
        integral: float64[3], current-time integral, A·s (parity: sum of samples, A).
        inrush: float64[3], inrush current by the device's method, A; 0 where there is none.
        inrush_found: bool[3], False where there are fewer than k peaks: neither test nor learn.
        inrush_first: float64[3], maximum at the start of the cycle, A.
        mean_current: float64[3], A.
        asymmetry: 100·Σ|In-Ī|/Ī, %; None where Ī is not above 0.
        unbalance: 100·max|In-Ī|/Ī (NEMA), %; None where Ī is not above 0.
        cycle_s: first to last sample, s.
        samples: readings in the cycle.
        coverage: share of the cycle that samples cover.
        max_gap_s: longest interval between two samples, s.
        status: `OK`, `TRUNCATED` or `LOW_COVERAGE`; only an `OK` cycle is tested and learnt.
    """

    ts: int
    integral: Floats
    inrush: Floats
    inrush_found: Bools
    inrush_first: Floats
    mean_current: Floats
    asymmetry: float | None
    unbalance: float | None
    cycle_s: float
    samples: int
    coverage: float
    max_gap_s: float
    status: Status

    @property
    def truncated(self) -> bool:
        """True for a part of a run that was longer than its maximum."""
        return self.status == Status.TRUNCATED


def update(
    state: OpenCycle,
    ts: Ints,
    running: Bools,
    pulse: Bools,
    current: Floats,
    good: Bools,
    parameters: CycleParameters,
    *,
    parity: bool = False,
) -> tuple[list[Cycle], OpenCycle]:
    """The cycles that these readings close, and the open one behind them.

    A cycle is a run of readings with the device running. The first reading that is not running
    closes it, or, with a SynchPulse, discards it. A reading that is not Good, or has a current
    that is not finite, does not count at all: it leaves a hole in the coverage. A run longer than
    `max_cycle_s` is closed as truncated at the first sample beyond, which starts the next part;
    every part of that run is truncated.

    Args:
        state: the open cycle before the first reading; never changed.
        ts: event times in ms, int64[n], in order.
        running: bool[n], DeviceState.
        pulse: bool[n], SynchPulse.
        current: float64[n, 3], phase currents in A.
        good: bool[n], False where the quality is not Good.
        parameters: settings of the device.
        parity: measure as the older scripts did: the integral is the plain sum of the samples.

    Raises:
        AnalysisError: arrays of different lengths, or currents of other than three phases.
    """
    n = len(ts)
    columns = {"running": running, "pulse": pulse, "current": current, "good": good}
    require_equal_length("a device's readings", ts=ts, **columns)
    if np.shape(current)[1:] != (PHASES,):
        raise AnalysisError(
            f"currents have shape {np.shape(current)}, expected ({n}, {PHASES}): one per phase"
        )
    current = np.asarray(current, np.float64)
    counts = np.flatnonzero(usable(current, np.asarray(good, np.bool_)[:, None]).all(axis=1))
    ts, current = np.asarray(ts, np.int64)[counts], current[counts]
    runs = np.asarray(running, np.bool_)[counts]
    discards = np.asarray(pulse, np.bool_)[counts]

    builder = _Builder(state, parameters, parity=parity)
    ends = np.flatnonzero(~runs & np.concatenate(([True], runs[:-1]))) if len(runs) else runs
    begin = 0
    for end in ends.tolist():
        builder.add(ts[begin:end][runs[begin:end]], current[begin:end][runs[begin:end]])
        if discards[end]:
            builder.discard()
        else:
            builder.close(int(ts[end]))
        begin = end + 1
    builder.add(ts[begin:][runs[begin:]], current[begin:][runs[begin:]])
    return builder.closed, builder.open_cycle


class _Builder:
    """Collects samples of one device; alive during one `update`."""

    def __init__(self, state: OpenCycle, parameters: CycleParameters, *, parity: bool) -> None:
        self._parameters = parameters
        self._parity = parity
        self._ts: Ints = np.frombuffer(state.ts, "<i8").astype(np.int64, copy=False)
        self._current = floats_of(state.current).reshape(-1, PHASES)
        self._overrun = state.overrun
        self.closed: list[Cycle] = []

    @property
    def open_cycle(self) -> OpenCycle:
        """What is left open."""
        stamps = np.ascontiguousarray(self._ts, "<i8").tobytes()
        return OpenCycle(stamps, bytes_of(self._current), self._overrun)

    def add(self, ts: Ints, current: Floats) -> None:
        """Take samples in, closing parts of a run that is too long."""
        if not len(ts):
            return
        self._ts = np.concatenate((self._ts, ts))
        self._current = np.concatenate((self._current, current))
        limit_ms = self._parameters.max_cycle_s * MS_PER_S
        while self._ts[-1] - self._ts[0] > limit_ms:
            beyond = int(np.argmax(self._ts - self._ts[0] > limit_ms))
            self._overrun = True
            self._measure(self._ts[:beyond], self._current[:beyond], int(self._ts[beyond]))
            self._ts, self._current = self._ts[beyond:], self._current[beyond:]

    def discard(self) -> None:
        """Forget the open cycle."""
        self._ts, self._current, self._overrun = self._ts[:0], self._current[:0], False

    def close(self, closed_ms: int) -> None:
        """Close the open cycle, if there is one, at the time of the closing reading."""
        if len(self._ts):
            self._measure(self._ts, self._current, closed_ms)
        self.discard()

    def _measure(self, ts: Ints, current: Floats, closed_ms: int) -> None:
        self.closed.append(
            _measured(
                ts,
                current,
                closed_ms,
                self._parameters,
                parity=self._parity,
                truncated=self._overrun,
            )
        )


def _measured(
    ts: Ints,
    current: Floats,
    closed_ms: int,
    parameters: CycleParameters,
    *,
    parity: bool,
    truncated: bool,
) -> Cycle:
    held = parameters.integral == "hold" and not parity
    mean_current = measures.plain_sum(current) / len(current)
    if parity:
        integral = measures.plain_sum(current)
    elif held:
        integral = measures.hold_last(ts, current, closed_ms)
        if closed_ms > ts[0]:
            mean_current = integral / ((closed_ms - int(ts[0])) / MS_PER_S)
    else:
        integral = measures.trapezoid(ts, current)

    first = measures.first_maximum(ts, current, parameters.inrush_window_ms)
    inrush, found = first, np.ones(PHASES, np.bool_)
    if parameters.inrush_method == "peak":
        peaks = [
            measures.kth_peak(current[:, n], parameters.inrush_peak, parameters.inrush_height_a)
            for n in range(PHASES)
        ]
        inrush = np.array([0.0 if peak is None else peak for peak in peaks])
        found = np.array([peak is not None for peak in peaks])

    covered = 1.0
    if not held or parameters.interval_ms is not None:
        covered = measures.coverage(ts, parameters.interval_ms)
    status = Status.OK
    if truncated:
        status = Status.TRUNCATED
    elif covered < parameters.min_coverage and not parity:
        status = Status.LOW_COVERAGE
    return Cycle(
        ts=closed_ms,
        integral=integral,
        inrush=inrush,
        inrush_found=found,
        inrush_first=first,
        mean_current=mean_current,
        asymmetry=measures.asymmetry(mean_current),
        unbalance=measures.nema_unbalance(mean_current),
        cycle_s=int(ts[-1] - ts[0]) / MS_PER_S,
        samples=len(ts),
        coverage=covered,
        max_gap_s=int(np.diff(ts).max(initial=0)) / MS_PER_S,
        status=status,
    )


def encode_state(state: OpenCycle) -> bytes:
    """The open cycle as MessagePack; equal states give equal bytes."""
    return encode(state)


def decode_state(data: bytes) -> OpenCycle:
    """The open cycle that `encode_state` wrote.

    Raises:
        AnalysisError: the bytes are damaged or of another kind of state.
    """
    return decode(data, OpenCycle)
