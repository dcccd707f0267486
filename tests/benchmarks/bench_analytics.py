"""Points a second of every detector, beside its naive per-message twin in the same run.

    python -m tests.benchmarks.bench_analytics [--json]

Seconds are CPU seconds of this process, so that a busy machine shows less; ratios compare
machines better. `live` is what one batch of ten rows costs, its state decoded and encoded.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from iiot_platform.analytics import cycles, states
from iiot_platform.analytics.detector import decode_state, detector, encode_state
from iiot_platform.analytics.zscore import ZScore
from iiot_platform.core.parameters import CycleParameters, DetectorParameters
from tests.reference.naive_detectors import NAIVE, NaiveScript

WINDOW = 50
LIVE_ROWS = 10


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def per_s(subject: Any, parameters: DetectorParameters, n: int) -> float:
    x = np.random.default_rng(1).normal(100.0, 1.0, n)
    ts, good = np.arange(n) * 100, np.ones(n, bool)
    state = subject.init(parameters)
    return n / seconds(lambda: subject.update(state, ts, x, good))


def live_us(subject: Any, parameters: DetectorParameters) -> float:
    """One batch of ten rows on a warm series, its state decoded before and encoded after."""
    x = np.random.default_rng(1).normal(100.0, 1.0, 300)
    ts, good = np.arange(300) * 100, np.ones(300, bool)
    stored = encode_state(subject.update(subject.init(parameters), ts, x, good)[1])

    def once() -> None:
        state = decode_state(parameters, stored)
        _, state = subject.update(state, ts[:LIVE_ROWS], x[:LIVE_ROWS], good[:LIVE_ROWS])
        encode_state(state)

    return seconds(lambda: [once() for _ in range(100)]) / 100 * 1e6


def naive_per_s(twin: Callable[[], Any], n: int = 3_000) -> float:
    x = np.random.default_rng(1).normal(100.0, 1.0, n).tolist()

    def run() -> None:
        series = twin()
        for ts, value in enumerate(x):
            series.message(ts, value)

    return n / seconds(run, 2)


def script_per_s(n: int = 1_000) -> float:
    x = np.random.default_rng(1).normal(100.0, 1.0, n).tolist()

    def run() -> None:
        series = NaiveScript("signal")
        for value in x:
            series.message(value)

    return n / seconds(run, 1)


def compiled_rates(
    parameters: DetectorParameters, naive: float, n: int = 1_000_000
) -> dict[str, dict[str, float]]:
    compiled = ZScore(parameters, engine="compiled")
    per_s(compiled, parameters, 100)  # compile or load
    whole = per_s(compiled, parameters, n)
    x, state = np.random.default_rng(1).normal(100.0, 1.0, n), compiled.init(parameters)
    alone = n / seconds(lambda: compiled.scan(state, x))
    return {
        "zscore compiled": {"points_per_s": whole, "of_naive": whole / naive},
        "zscore kernel alone": {"points_per_s": alone, "of_naive": alone / naive},
    }


def measure() -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    script = script_per_s()
    found["older script"] = {"points_per_s": script, "of_naive": 1.0}
    parameters = DetectorParameters(parity=True)
    parity: Any = detector(parameters)
    rate = per_s(parity, parameters, 20_000)
    found["parity"] = {
        "points_per_s": rate,
        "of_naive": rate / script,
        "live_us": live_us(parity, parameters),
    }
    sizes = {"zscore": 200_000, "robust_z": 50_000, "cusum": 100_000, "ewma": 100_000}
    for name, n in sizes.items():
        parameters = DetectorParameters.model_validate({"detector": name, "window": WINDOW})
        subject: Any = detector(parameters)
        naive = naive_per_s(lambda name=name: NAIVE[name](window=WINDOW))
        if name == "zscore":
            found |= compiled_rates(parameters, naive)
            subject = ZScore(parameters, engine="plain")
        rate = per_s(subject, parameters, n)
        found[f"{name} plain"] = {
            "points_per_s": rate,
            "of_naive": rate / naive,
            "live_us": live_us(subject, parameters),
        }
    n = 100_000
    ts, good = np.arange(n) * 100, np.ones(n, bool)
    running = np.arange(n) % 300 < 200
    columns: dict[str, Any] = {"pulse": ~good, "current": np.ones((n, 3)), "good": good}
    found["cycles"] = {
        "points_per_s": n
        / seconds(
            lambda: cycles.update(
                cycles.OpenCycle(), ts, running, **columns, parameters=CycleParameters()
            )
        )
    }
    found["states"] = {
        "points_per_s": n
        / seconds(lambda: states.update(states.StateSeries(), ts, running.astype(int), good))
    }
    return found


def main() -> None:
    found = measure()
    if "--json" in sys.argv[1:]:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    lines = [f"{'window ' + str(WINDOW):<22}{'points/CPU s':>14}{'x naive':>10}{'live µs':>10}"]
    for name, row in found.items():
        ratio = f"{row['of_naive']:.1f}" if "of_naive" in row else ""
        live = f"{row['live_us']:.0f}" if "live_us" in row else ""
        lines.append(f"{name:<22}{row['points_per_s']:>14,.0f}{ratio:>10}{live:>10}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
