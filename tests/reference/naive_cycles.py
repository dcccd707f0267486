"""A per-message twin of the electrical cycles, as obvious as it is slow."""

from dataclasses import dataclass, field


@dataclass
class NaiveCycles:
    max_cycle_s: float
    ts: list[int] = field(default_factory=list)
    current: list[float] = field(default_factory=list)
    overrun: bool = False
    closed: list[tuple[int, float, int, bool]] = field(default_factory=list)
    """Closing time, trapezoid integral of one phase, samples, truncated."""

    def message(self, ts: int, *, running: bool, pulse: bool, current: float) -> None:
        if running:
            if self.ts and ts - self.ts[0] > self.max_cycle_s * 1000:
                self.overrun = True
                self.close(ts)
                self.overrun = True
            self.ts.append(ts)
            self.current.append(current)
        elif pulse:
            self.ts, self.current, self.overrun = [], [], False
        elif self.ts:
            self.close(ts)

    def close(self, ts: int) -> None:
        integral = 0.0
        for n in range(1, len(self.ts)):
            dt = (self.ts[n] - self.ts[n - 1]) / 1000
            integral += dt * (self.current[n] + self.current[n - 1]) / 2
        self.closed.append((ts, integral, len(self.ts), self.overrun))
        self.ts, self.current, self.overrun = [], [], False
