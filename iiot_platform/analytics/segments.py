"""Batches cut where an acknowledgement takes effect: each starts its series anew."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec
import numpy as np

from iiot_platform.analytics.rows import Bools, DetectorRows, Floats, Ints, usable
from iiot_platform.analytics.tally import Tally, alerts, ratios
from iiot_platform.core.clock import to_ms
from iiot_platform.core.errors import AnalysisError
from iiot_platform.core.parameters import DetectorParameters
from iiot_platform.core.quality import Status


class SeriesState(Protocol):
    """What every detector's state has."""

    @property
    def size(self) -> int: ...  # noqa: D102 - said in each state
    @property
    def tally(self) -> Tally: ...  # noqa: D102 - said in each state


S = TypeVar("S", bound=SeriesState)


def by_acknowledgement(
    parameters: DetectorParameters,
    state: S,
    ts: Ints,
    x: Floats,
    good: Bools,
    scan: Callable[[S, Floats, Bools, DetectorRows], S],
) -> tuple[DetectorRows, S]:
    """Run `scan` over the rows between acknowledgements and complete what detectors share.

    An acknowledgement at event time t takes effect at the first row with ts >= t, before its
    value is tested: the series starts anew there, as if nothing had come before.

    Args:
        parameters: settings of the detector.
        state: the state before the first row; it is not changed.
        ts: event times, int64[n], in ms, in order.
        x: values, float64[n].
        good: bool[n], where the quality is Good.
        scan: fills the rows of values under one reference and returns the state behind them.

    Raises:
        AnalysisError: arrays of different lengths, or a state of another window length.
    """
    n = len(x)
    if not len(ts) == len(good) == n:
        raise AnalysisError(
            f"a batch has {len(ts)} times, {n} values and {len(good)} qualities; "
            "give one of each for every row"
        )
    if state.size != parameters.window:
        raise AnalysisError(
            f"the state was made for a window of {state.size} values, the settings say "
            f"{parameters.window}; start the series anew with init()"
        )
    rows = DetectorRows.empty(n)
    accepted = usable(x, good)
    for start, stop, acknowledged_ms in _segments(parameters, state.tally.acknowledged_ms, ts):
        if acknowledged_ms is not None:
            fresh = Tally(acknowledged_ms=acknowledged_ms)
            state = type(state)(size=state.size, tally=fresh)  # type: ignore[call-arg]  # every state has both
        part = rows.part(start, stop)
        state = scan(state, x[start:stop], accepted[start:stop], part)
        tested = (part.status == Status.OK) | (part.status == Status.RELEARNED)
        modelled = part.model_std > 0
        flags = state.tally.flags
        share, flags = ratios(flags, part.anomaly, tested, parameters.rate_window)
        part.anomaly_ratio[modelled] = share[modelled]
        part.z_score_thresh[modelled] = parameters.threshold
        part.alert[:], held = alerts(part.anomaly, state.tally.refractory, parameters.refractory)
        tally = msgspec.structs.replace(state.tally, flags=flags, refractory=held)
        state = msgspec.structs.replace(state, tally=tally)  # type: ignore[type-var]  # a Struct
    return rows, state


def _segments(
    parameters: DetectorParameters, done_ms: int | None, ts: Ints
) -> list[tuple[int, int, int | None]]:
    """Start and stop row of each segment, and the acknowledgement that starts it."""
    starts: dict[int, int | None] = {0: None}
    for moment in sorted(to_ms(moment) for moment in parameters.acknowledged):
        if (done_ms is None or moment > done_ms) and len(ts) and ts.max() >= moment:
            starts[int(np.argmax(ts >= moment))] = moment
    begins = sorted(starts)
    ends = [*begins[1:], len(ts)]
    return [(begin, end, starts[begin]) for begin, end in zip(begins, ends, strict=True)]
