"""What a person may set for an analysis: declared once, used by the plant file and the analyses."""

from datetime import UTC
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Moment = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
"""A time with its zone or offset, kept as UTC so that one moment has one spelling."""


class Parameters(BaseModel):
    """Base of all settings: frozen, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DetectorParameters(Parameters):
    """Settings of one anomaly detector; docs/analytics.md says what each one does."""

    detector: Literal["zscore", "robust_z", "cusum", "ewma"] = "zscore"
    window: Annotated[int, Field(ge=3, le=100_000)] = 200
    """Accepted values that mean and std are taken over."""
    threshold: PositiveFloat = 3.5
    """A value is an anomaly where |z| exceeds this."""
    rate_window: PositiveInt = 50
    """Flags that `anomaly_ratio` is taken over."""
    relearn_after: Annotated[int, Field(ge=0)] = 50
    """Consecutive anomalies after which the window is learnt anew; 0: never."""
    refractory: Annotated[int, Field(ge=0)] = 200
    """Points after an anomaly in which alerts, not flags, of the series are held back."""
    resolution: PositiveFloat | None = None
    """Smallest step of the sensor, in its unit; gives the floor of std as resolution / sqrt(12)."""
    scale_floor: PositiveFloat | None = None
    """Floor of std in the sensor's unit; default resolution / sqrt(12), else 1e-4 of |mean|."""
    parity: bool = False
    """Reproduce the older per-message scripts exactly, rounding included."""
    cusum_k: PositiveFloat = 1.0
    """CUSUM allowance, in std of the reference."""
    cusum_h: PositiveFloat = 40.0
    """CUSUM decision interval, in std of the reference."""
    cusum_clip: PositiveFloat | None = 4.0
    """|z| is clipped here before it is summed; null: not clipped."""
    ewma_lambda: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Weight of the newest value in the EWMA."""
    acknowledged: tuple[Moment, ...] = ()
    """Event times from which a new level counts as normal: the reference is frozen anew."""


class CycleParameters(Parameters):
    """Settings of an electrical device's cycles."""

    integral: Literal["trapezoid", "hold"] = "trapezoid"
    """`trapezoid` for sampled data, `hold` (last value held) for report-by-exception."""
    inrush_method: Literal["first_window", "peak"] = "first_window"
    inrush_window_ms: PositiveInt = 500
    """Length of the start of a cycle whose maximum is the inrush current."""
    inrush_peak: PositiveInt = 1
    """k: which peak above the height counts."""
    inrush_height_a: Annotated[float, Field(ge=0)] = 0.0
    """Height in ampere that a peak must reach."""
    max_cycle_s: PositiveFloat = 3_600.0
    """A cycle longer than this is closed as `truncated`."""
    interval_ms: PositiveInt | None = None
    """Nominal sample interval for coverage; default: the cycle's own median."""
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Below it a cycle is stored but neither tested nor learnt."""


class StateParameters(Parameters):
    """Settings of a state series."""

    running: tuple[int, ...] = (1,)
    """State values that count as running in the running share."""
    hold_s: PositiveFloat = 300.0
    """How long a state is held after its last reading before time counts as unknown."""
