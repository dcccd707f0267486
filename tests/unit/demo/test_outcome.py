from pathlib import Path

import pytest

from iiot_platform.config.plant import Line, Plant
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.demo import outcome
from iiot_platform.demo.outcome import Captured, Latency, OpcUaCounts
from iiot_platform.demo.progress import Published
from iiot_platform.engine.engine import Engine
from simulator.labels import Label
from tests.servers.capture_log import write_segments

ROWS = 400
SPIKE_AT = 350
ALARM_AT = 380


def reading(ts_ms: int, value: float, device: str = "oil") -> Record:
    payload = f'{{"SensorName":"{device}","SensorValue":{value},"TimeStamp":{ts_ms}}}'
    return Record("mqtt", f"line1/press/{device}", payload.encode(), ts_ms * 1_000)


@pytest.fixture
def start_ms() -> int:
    return now_ms() - 1_000 * ROWS


@pytest.fixture
def home(tmp_path: Path, start_ms: int) -> Home:
    """A signal with one labelled spike and one that nobody ordered."""
    home = Home(tmp_path)
    values = [20 + (i * 37 % 11) / 10 for i in range(ROWS)]
    values[SPIKE_AT] = values[ALARM_AT] = 50
    write_segments(
        home, "line1", [reading(start_ms + 1_000 * i, value) for i, value in enumerate(values)]
    )
    engine = Engine(home, Plant(lines=(Line(name="line1"),)))
    while engine.run_batch("line1", run_id="run"):
        pass
    engine.close()
    return home


def label(start_ms: int, at: int, fault: str = "spike") -> Label:
    begin = start_ms + 1_000 * at
    return Label(
        line="line1",
        machine="press",
        device="oil",
        series="oil",
        kind="signal",
        fault=fault,
        start_ms=begin,
        end_ms=begin + 1,
    )


def test_faults_and_false_alarms_are_told_apart(home: Home, start_ms: int) -> None:
    labels = home.root / "labels.jsonl"
    labels.write_bytes(
        label(start_ms, SPIKE_AT).encoded()
        + label(start_ms, 300, "stuck").encoded()
        + label(start_ms, -1_000, "of an earlier run").encoded()
    )

    found = outcome.found_faults(home, labels, ["line1", "line2"], start_ms)
    each, total = outcome.recall(found)

    assert each == {"spike": 1.0, "stuck": 0.0}
    assert total == 0.5
    assert found.false_alarms == 1


def test_rows_of_a_warming_detector_were_not_tested(home: Home, start_ms: int) -> None:
    rows = outcome.tested_rows(home, ["line1"], start_ms)

    assert len(rows.ts_ms) == ROWS - 200
    assert set(rows.series) == {"line1/press/oil"}
    assert rows.anomaly.sum() == 2


def test_without_anything_nothing_is_scored(tmp_path: Path) -> None:
    found = outcome.found_faults(Home(tmp_path), tmp_path / "labels.jsonl", ["line1"], 0)

    assert outcome.recall(found) == ({}, None)
    assert found.false_alarm_rate is None
    assert outcome.latency(Home(tmp_path), ["line1"], 0) == Latency(None, None, 0)


def test_latency_counts_the_live_part_alone(home: Home, start_ms: int) -> None:
    live_since = start_ms + 1_000 * (ROWS - 10)

    found = outcome.latency(home, ["line1"], live_since)

    assert found.n == 10
    assert found.p50 is not None
    assert found.p95 is not None
    assert 4 < found.p50 < found.p95 < 60


def test_a_message_that_is_missing_is_told(home: Home) -> None:
    assert outcome.losses(home, {"line1": ROWS}, {"line1": (0, ROWS)}) == []
    assert outcome.losses(home, {"line1": ROWS + 1}, {"line1": (0, ROWS)}) == [
        f"line 'line1': {ROWS + 1} messages published, {ROWS} captured"
    ]
    assert outcome.losses(home, {"line2": 1}, {}) == [
        "line 'line2': 1 messages published, 0 captured"
    ]


def test_a_repetition_does_not_stand_in_for_what_is_missing(home: Home, start_ms: int) -> None:
    write_segments(home, "line1", [reading(start_ms, 20.0)])

    assert outcome.repeated(home, "line1", 0, ROWS + 1) == 1
    assert len(outcome.losses(home, {"line1": ROWS + 1}, {"line1": (0, ROWS + 1)})) == 1


def test_values_over_opc_ua_are_counted_once_and_history_apart(tmp_path: Path) -> None:
    home = Home(tmp_path)

    def value(at: int, number: float, *, kept: bool = False) -> Record:
        payload = f'{{"SensorValue":{number}}}'.encode()
        return Record("opcua", "line2/oven/flow", payload, at, at, at, 0, kept)

    records = [value(1, 1.5), value(2, 1.5), value(2, 1.5), value(0, 9.5, kept=True)]
    records.append(Record("opcua", "$gap/opcua", b"{}", 3))
    write_segments(home, "line2", records)

    found = outcome.captured(home, "line2", 0, len(records))

    assert found == Captured(live=2, history=1, gaps=1)
    assert outcome.values_missing({"line2": 2}, {"line2": found}) == []
    assert outcome.values_missing({"line2": 3}, {"line2": found}) == [
        "line 'line2': 3 values shown by the OPC UA server, 2 captured (1 gaps in the log)"
    ]
    served = Published(total=5, shown_per_line={"line2": 2})
    counts = outcome.opcua(served, {"line2": found})
    assert counts == OpcUaCounts(written=5, shown=2, captured=2, history=1, gaps=1)
    assert outcome.opcua(Published(), {}) is None
