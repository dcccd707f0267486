"""Per-message twins of the detectors: one value at a time, nothing shared with the platform.

They are slow and obvious; the platform's detectors must agree with them to the last bit.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass, field

Model = tuple[float, float]
WARMING, OK, BAD, RELEARNED = "warming", "ok", "bad_quality", "relearned"


@dataclass
class Row:
    anomaly: int = 0
    anomaly_ratio: float = 0.0
    model_avg: float = 0.0
    model_std: float = 0.0
    z_score: float = 0.0
    z_score_thresh: float = 0.0
    shift_event: int = 0
    off_reference: int = 0
    status: str = WARMING
    alert: int = 0


def mean_std(window: list[float]) -> Model:
    total = window[0]
    for value in window[1:]:
        total = total + value
    mean = total / len(window)
    squares = None
    for value in window:
        square = (value - mean) * (value - mean)
        squares = square if squares is None else squares + square
    return mean, math.sqrt(squares / (len(window) - 1))


def median_mad(window: list[float]) -> Model:
    median = statistics.median(window)
    return median, statistics.median([abs(value - median) for value in window]) * 1.4826


@dataclass
class NaiveSeries:
    """Base: what a detector remembers, and what it says about the next value."""

    window: int = 200
    threshold: float = 3.5
    rate_window: int = 50
    relearn_after: int = 50
    refractory: int = 200
    resolution: float | None = None
    scale_floor: float | None = None
    acknowledged: tuple[int, ...] = ()
    values: list[float] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    streak: int = 0
    reference: Model | None = None
    off: int = 0
    held: int = 0
    last_acknowledged: int | None = None

    estimate = staticmethod(mean_std)

    def limit(self) -> float:
        return self.threshold

    def floored(self, window: list[float]) -> Model:
        location, scale = self.estimate(window)
        if self.scale_floor is not None:
            floor = self.scale_floor
        elif self.resolution is not None:
            floor = self.resolution / math.sqrt(12)
        else:
            floor = max(1e-4 * abs(location), 1e-12)
        return location, max(scale, floor)

    def restart(self) -> None:
        self.values, self.flags, self.streak = [], [], 0
        self.reference, self.off, self.held = None, 0, 0

    def model(self) -> Model | None:
        return self.floored(self.values) if len(self.values) == self.window else None

    def statistic(self, value: float, model: Model) -> float:
        return (value - model[0]) / model[1]

    def accept(self, value: float) -> None:
        self.values = [*self.values[1:], value]

    def shifted(self, value: float) -> None:
        self.off = int(
            self.off or abs(value - self.reference[0]) > self.threshold * self.reference[1]
        )
        self.values = []

    def message(self, ts: int, value: float, *, good: bool = True) -> Row:
        due = [t for t in self.acknowledged if t <= ts]
        due = [t for t in due if self.last_acknowledged is None or t > self.last_acknowledged]
        if due:
            self.restart()
            self.last_acknowledged = max(due)
        row = Row()
        usable = good and math.isfinite(value) and abs(value) <= 1e100
        model = self.model()
        if usable and model is None:
            self.values.append(value)
        elif usable:
            row.status = OK
            if self.reference is None:
                self.reference = model
            z = row.z_score = self.statistic(value, model)
            row.anomaly = int(abs(z) > self.limit())
            self.flags = [*self.flags, row.anomaly][-self.rate_window :]
            if row.anomaly:
                self.streak += 1
                self.reject(value)
            else:
                self.streak = 0
                self.accept(value)
            if row.anomaly and self.streak == self.relearn_after:
                self.shifted(value)
                row.status, row.shift_event, self.streak = RELEARNED, 1, 0
        if model is not None:
            row.model_avg, row.model_std = model
            row.z_score_thresh = self.limit()
            row.anomaly_ratio = sum(self.flags) / len(self.flags) if self.flags else 0.0
        if not usable:
            row.status = BAD
        row.off_reference = self.off
        if row.anomaly and not self.held:
            row.alert, self.held = 1, self.refractory
        else:
            self.held = max(self.held - 1, 0)
        return row

    def reject(self, value: float) -> None:
        pass


class NaiveZScore(NaiveSeries):
    pass


class NaiveRobustZ(NaiveSeries):
    estimate = staticmethod(median_mad)


class NaiveChart(NaiveSeries):
    def model(self) -> Model | None:
        return self.reference or super().model()

    def shifted(self, value: float) -> None:  # noqa: ARG002 - charts latch whatever the value
        self.off, self.reference = 1, None
        self.reset()

    def restart(self) -> None:
        super().restart()
        self.reset()

    def reset(self) -> None:
        self.values = []

    def accept(self, value: float) -> None:  # noqa: ARG002 - the reference does not move
        self.values = []

    def reject(self, value: float) -> None:
        self.accept(value)


@dataclass
class NaiveCusum(NaiveChart):
    cusum_k: float = 1.0
    cusum_h: float = 40.0
    cusum_clip: float | None = 4.0
    up: float = 0.0
    down: float = 0.0

    def limit(self) -> float:
        return self.cusum_h

    def reset(self) -> None:
        super().reset()
        self.up = self.down = 0.0

    def statistic(self, value: float, model: Model) -> float:
        z = super().statistic(value, model)
        if self.cusum_clip is not None:
            z = max(-self.cusum_clip, min(self.cusum_clip, z))
        self.up = min(max(0.0, self.up + z - self.cusum_k), 2 * self.cusum_h)
        self.down = min(max(0.0, self.down - z - self.cusum_k), 2 * self.cusum_h)
        return self.up if self.up >= self.down else -self.down


@dataclass
class NaiveEwma(NaiveChart):
    ewma_lambda: float = 0.05
    average: float = 0.0
    decay: float = 1.0

    def reset(self) -> None:
        super().reset()
        self.average, self.decay = 0.0, 1.0

    def statistic(self, value: float, model: Model) -> float:
        rest = 1.0 - self.ewma_lambda
        self.average = self.ewma_lambda * super().statistic(value, model) + rest * self.average
        self.decay = self.decay * (rest * rest)
        variance = self.ewma_lambda / (2.0 - self.ewma_lambda) * (1.0 - self.decay)
        return self.average / math.sqrt(variance)


NAIVE = {
    "zscore": NaiveZScore,
    "robust_z": NaiveRobustZ,
    "cusum": NaiveCusum,
    "ewma": NaiveEwma,
}


class NaiveScript:
    """The older per-message script: `statistics`, rounding by quantity, no second thoughts."""

    def __init__(self, quantity: str, *, threshold: float = 2.0, length: int = 50) -> None:
        self.quantity, self.threshold, self.length = quantity, threshold, length
        self.window: list[float] = []
        self.flags: deque[int] = deque()

    def message(self, value: float) -> Row:
        if self.quantity == "vibration_total":
            value = round(value, 5)
        if len(self.window) < self.length:
            self.window.append(value)
            if len(self.window) == self.length:
                self.flags = deque([0])
            return Row()
        mean, std = statistics.mean(self.window), statistics.stdev(self.window)
        if std == 0:
            std = 0.001
        if self.quantity != "electrical":
            mean = round(mean, 3)
        z = (abs(value) - abs(mean)) / std
        z = round(z, 4 if self.quantity == "electrical" else 3)
        flag = int(abs(z) > self.threshold)
        if not flag:
            self.window.pop(0)
            self.window.append(value)
        ratio = 0.0
        if len(self.flags) == self.length:
            self.flags.popleft()
            ratio = round((sum(self.flags) + flag) / self.length, 3)
        self.flags.append(flag)
        return Row(
            flag, ratio, round(mean, 4), round(std, 4), round(z, 4), self.threshold, status=OK
        )
