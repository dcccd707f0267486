"""A line with one fault in the middle, computed: what its alerts do is known."""

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from iiot_platform.config.plant import Plant
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from tests.servers.capture_log import write_segments
from tests.servers.streams import signal

LINE = "line1"
FAULT_S = (120, 180)
LENGTH_S = 400
FIRED_S = 150
"""The ratio exceeds 0.2 with the third wrong value, at 123 s; the moment is 130 s, and 20 s on."""
RESOLVED_S = 250
"""The last wrong value leaves the flags at 190 s; the moment is 190 s, and 60 s on."""


def faulty_plant(**alerts: Any) -> Plant:
    detector = {"window": 50, "rate_window": 10, "relearn_after": 0}
    return Plant.model_validate(
        {"lines": [LINE], "defaults": {"signal": detector}, "alerts": alerts}
    )


def write_faulty_line(
    folder: Path, start_ms: int, *, seconds: int = LENGTH_S, fault_s: tuple[int, int] = FAULT_S
) -> Home:
    """A reading of one device each second, computed."""
    home = Home(folder)
    records = [
        signal(
            "oil", start_ms + s * 1_000, 50.0 if fault_s[0] <= s < fault_s[1] else 20 + s % 3 / 10
        )
        for s in range(seconds)
    ]
    write_segments(home, LINE, records)
    with closing(Engine(home, faulty_plant())) as engine:
        while engine.run_batch(LINE, run_id="5f1c9c0e-3f7e-4c7e-9a66-0d0d8d1c4b11"):
            pass
    return home


def status_file(home: Home, written_ms: int, **changes: Mapping[str, Any] | str) -> None:
    """What the buffer says of itself."""
    body = {
        "written_ms": written_ms,
        "storage_error": "",
        "sources": {"mqtt": {"state": "connected", "reason": ""}},
        "lines": {},
        **changes,
    }
    (home.capture / "status.json").write_text(json.dumps(body))
