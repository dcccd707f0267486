import json
from pathlib import Path

import pytest

from iiot_platform.config.plant import Line, Plant
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.status import PlantStatus, StatusReader
from tests.servers.capture_log import write_segments

HOUR_MS = 3_600_000


def read(home: Home, *lines: str) -> PlantStatus:
    reader = StatusReader(home, lines)
    try:
        return reader.read()
    finally:
        reader.close()


def record(ts_ms: int, received_ms: int | None = None, payload: bytes | None = None) -> Record:
    body = f'{{"SensorName":"flow","SensorValue":1.5,"TimeStamp":{ts_ms}}}'.encode()
    at = ts_ms if received_ms is None else received_ms
    return Record("mqtt", "line1/press/flow", payload or body, at * 1_000)


def compute(home: Home) -> None:
    engine = Engine(home, Plant(lines=(Line(name="line1"),)), sinks=("influxdb",))
    while engine.run_batch("line1", run_id="run"):
        pass
    engine.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_an_empty_home_is_told_without_making_anything(home: Home) -> None:
    found = read(home, "line1")

    assert found.buffer.written_ms is None
    assert not found.buffer.running
    assert [line.line for line in found.lines] == ["line1"]
    assert found.lines[0].captured == found.lines[0].consumed == 0
    assert not list(home.root.iterdir())


def test_what_waits_is_counted_with_its_age(home: Home) -> None:
    now = now_ms()
    write_segments(home, "line1", [record(now - 60_000 + i) for i in range(10)])

    line = read(home).lines[0]

    assert (line.captured, line.consumed, line.lag_rows) == (10, 0, 10)
    assert 59 <= line.lag_s <= 60 + (now_ms() - now) / 1_000


def test_what_was_computed_is_counted(home: Home) -> None:
    now = now_ms()
    write_segments(
        home,
        "line1",
        [*(record(now - 1_000 + i) for i in range(10)), record(now, payload=b"not json")],
    )
    compute(home)

    line = read(home).lines[0]

    assert (line.consumed, line.lag_rows, line.lag_s) == (11, 0, 0.0)
    assert line.rows["signals"] == 10
    assert sum(line.quarantined.values()) == 1
    assert line.batches.count == 1
    assert line.batches.last_ms is not None
    assert line.batches.seconds_p50 == line.batches.seconds_p95
    assert line.sinks["influxdb"].pending > 0


def test_hours_to_be_computed_again_are_named(home: Home) -> None:
    now = now_ms()
    write_segments(home, "line1", [record(now - 1)])
    compute(home)
    write_segments(home, "line1", [record(now - 2 * HOUR_MS, now)])
    compute(home)

    line = read(home).lines[0]

    assert line.late_rows == 1
    assert list(line.dirty.values()) == [["late"]]


def test_the_buffer_tells_of_rows_that_are_not_sealed(home: Home) -> None:
    write_segments(home, "line1", [record(now_ms())])
    report = {
        "written_ms": now_ms(),
        "storage_error": "",
        "sources": {
            "mqtt": {
                "state": "disconnected",
                "reason": "refused",
                "since_ms": 0,
                "qos0_dropped": 4,
                "broker_dropped": 9,
            },
            "opcua": {"state": "connected", "reason": "", "since_ms": 0},
        },
        "disk": {"level": "low", "message": "getting full"},
        "lines": {
            "line1": {
                "captured": 3,
                "rate_per_s": 1.5,
                "redeliveries_dropped": 2,
                "last_received_ms": 5,
                "devices": {"line1/press/flow": 5},
            }
        },
    }
    (home.capture / "status.json").write_text(json.dumps(report), encoding="utf-8")

    found = read(home)

    assert found.buffer.running
    assert found.buffer.sources == {"mqtt": "disconnected: refused", "opcua": "connected"}
    assert found.buffer.counts == {"mqtt": {"qos0_dropped": 4, "broker_dropped": 9}, "opcua": {}}
    assert (found.buffer.disk, found.buffer.disk_message) == (1, "getting full")
    assert found.buffer.redeliveries_dropped == 2
    assert found.lines[0].captured == 3
    assert found.lines[0].devices == {"line1/press/flow": 5}


def test_a_buffer_that_is_silent_does_not_run(home: Home) -> None:
    home.capture.mkdir()
    written = now_ms() - 60_000
    (home.capture / "status.json").write_text(json.dumps({"written_ms": written}), "utf-8")

    found = read(home)

    assert not found.buffer.running
    assert found.buffer.written_ms == written


def test_a_status_is_json(home: Home) -> None:
    write_segments(home, "line1", [record(now_ms())])
    compute(home)

    assert json.loads(json.dumps(read(home).as_json()))["lines"][0]["line"] == "line1"


def test_what_a_person_should_look_after_is_told(home: Home) -> None:
    home.capture.mkdir(parents=True)
    report = {
        "disk": {"level": "low", "message": "getting full"},
        "upkeep": {"damaged": ["a: cut", "b: cut"], "retention": "stays", "error": "no room"},
        "missing_files": ["c"],
        "rebuilt": "3 records",
        "plant_problem": "line 3: oh",
    }
    (home.capture / "status.json").write_text(json.dumps(report))
    assert read(home).buffer.warnings == (
        "the plant file is broken, the buffer goes on with the one before: line 3: oh",
        "getting full",
        "1 segments are missing, the first is c",
        "2 segments were damaged and are set aside, the last is b: cut",
        "the manifest was made anew: 3 records",
        "stays",
        "the log can not be looked after: no room",
    )


def test_what_the_buffer_counts_of_itself_is_told(home: Home) -> None:
    assert read(home).buffer.free_bytes is None
    home.capture.mkdir(parents=True)
    source = {"state": "connected", "reason": "", "since_ms": 5, "connects": 2, "waiting": 40}
    body = {
        "written_ms": now_ms(),
        "hot_rows": 12,
        "commits": {"count": 3, "mean_s": 0.01},
        "seals": {"count": 1, "mean_s": 0.05},
        "disk": {"free": 30, "total": 90, "level": "ok", "message": ""},
        "sources": {"mqtt": source},
    }
    (home.capture / "status.json").write_text(json.dumps(body))

    found = read(home).buffer

    assert (found.hot_rows, found.commits["count"], found.seals["mean_s"]) == (12, 3, 0.05)
    assert (found.free_bytes, found.size_bytes) == (30, 90)
    assert found.counts == {"mqtt": {"connects": 2, "waiting": 40}}
