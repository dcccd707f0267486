import json
from pathlib import Path

from iiot_platform.demo.progress import Simulation


def stats(path: Path, started_ms: int, published: int, shown: int) -> None:
    found = {
        "started_ms": started_ms,
        "phase": "live",
        "published": published,
        "published_per_line": {"line2": published},
        "shown_per_line": {"line2": shown},
        "live_since_ms": started_ms,
        "outstanding": 0,
    }
    path.write_text(json.dumps(found))


def test_counts_go_on_over_a_restart_and_leave_out_an_earlier_demo(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    simulation = Simulation(path, since_ms=100)
    assert simulation.published().phase == "starting"
    stats(path, 99, 50, 40)
    assert simulation.published().total == 0
    stats(path, 100, 7, 5)
    simulation.restarts()
    stats(path, 200, 3, 2)
    found = simulation.published()
    assert (found.total, found.per_line, found.expected) == (10, {"line2": 10}, {"line2": 7})
