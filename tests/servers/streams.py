"""Messages as devices of a line send them, for tests of the engine."""

import json
import random
from collections.abc import Sequence

from hypothesis import strategies as st

from iiot_platform.core.capture_log import Record

HOUR_MS = 3_600_000
BASE_MS = 1_790_000_000_000 // HOUR_MS * HOUR_MS


def record(
    device: str,
    ts: int | None,
    *,
    line: str = "line1",
    received: int | None = None,
    machine: str = "press",
    **fields: object,
) -> Record:
    """A message of `<line>/<machine>/<device>`, times in Unix ms."""
    body: dict[str, object] = dict(fields)
    if ts is not None:
        body["TimeStamp"] = ts
    at = received if received is not None else (ts or BASE_MS) + 20
    payload = json.dumps(body).encode()
    return Record("mqtt", f"{line}/{machine}/{device}", payload, at * 1_000)


def signal(device: str, ts: int, value: float, **more: object) -> Record:
    return record(device, ts, SensorName=device, SensorValue=value, **more)  # type: ignore[arg-type]


def state(device: str, ts: int, value: int, **more: object) -> Record:
    return record(device, ts, StateName=device, StateValue=value, **more)  # type: ignore[arg-type]


def vibration(device: str, ts: int, noise: random.Random) -> Record:
    x, y, z = (abs(noise.gauss(0.5, 0.02)) for _ in range(3))
    return record(device, ts, VibAccelTotRmsX=x, VibAccelTotRmsY=y, VibAccelTotRmsZ=z)


def valve(device: str, ts: int, operation: str, ms: int) -> Record:
    return record(device, ts, ValveName=device, TimeType=operation, TimeValue=ms)


def electrical(device: str, ts: int, noise: random.Random, *, running: bool) -> Record:
    phases = {f"CurrentL{n}": noise.gauss(10, 0.3) if running else 0.0 for n in (1, 2, 3)}
    harmonics = {f"CurrentL{n}_Harm": [round(noise.random(), 3)] * 42 for n in (1, 2, 3)}
    data = {"ActPowerTot": 6.5, "PowerFact": 0.9} | phases | harmonics
    return record(
        device,
        ts,
        DeviceName=device,
        DeviceState="Running" if running else "Stopped",
        SynchPulse=False,
        ElectricalData=data,
    )


def line_records(
    seed: int, messages: int, *, spread_ms: int = 2 * HOUR_MS, start_ms: int = BASE_MS
) -> list[Record]:
    """A line's messages in the order of their times, over a few hours, faults among them."""
    noise = random.Random(seed)
    step = max(spread_ms // max(messages, 1), 1)
    records = []
    for i in range(messages):
        ts = start_ms + i * step + noise.randrange(step)
        spike = 40.0 if noise.random() < 0.02 else 0.0
        match noise.randrange(9):
            case 0 | 1:
                records.append(signal("temperature", ts, noise.gauss(20, 0.5) + spike))
            case 2:
                records.append(signal("pressure", ts, noise.gauss(5, 0.1) + spike))
            case 3:
                records.append(state("mode", ts, noise.randrange(3)))
            case 4:
                records.append(vibration("bearing", ts, noise))
            case 5:
                records.append(valve("v1", ts, "ExtendTime", 300 + noise.randrange(20)))
            case 6 | 7:
                records.append(electrical("motor", ts, noise, running=noise.random() < 0.8))
            case _:
                records.append(record("climate", ts, Temperature=noise.gauss(22, 0.1), Humidity=40))
    return records


def disturb(records: Sequence[Record], seed: int) -> list[Record]:
    """The same messages as a bad network delivers them: late, out of order, some twice, some bad.

    Receive times rise with the order of arrival and stay within what counts as in time.
    """
    noise = random.Random(seed)
    arrivals: list[tuple[float, Record]] = []
    for i, message in enumerate(records):
        delay = noise.choice((0, 0, 0, 0, 1, 3, len(records) / 4, len(records) / 2))
        arrivals.append((i + noise.random() * delay, message))
        if noise.random() < 0.05:
            arrivals.append((i + noise.random() * len(records) / 3, message))
        if noise.random() < 0.03:
            arrivals.append((i, message._replace(payload=b"{not json")))
        if noise.random() < 0.02:
            other = json.loads(message.payload) | {"SensorValue": 19.5, "SensorName": "temperature"}
            payload = json.dumps({k: v for k, v in other.items() if "Vib" not in k}).encode()
            arrivals.append((i + noise.random() * 5, message._replace(payload=payload)))
    arrivals.sort(key=lambda pair: pair[0])
    last = max(record.received_ts for record in records) if records else 0
    return [
        message._replace(received_ts=last + position * 1_000)
        for position, (_, message) in enumerate(arrivals)
    ]


def cuts(total: int) -> st.SearchStrategy[list[int]]:
    """Sizes of batches that together take `total` rows."""
    return st.lists(st.integers(total // 4, total), min_size=1, max_size=4)
