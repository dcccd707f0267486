"""Gaps that the buffer wrote stand in their table; a damaged one stops nothing."""

import json

from iiot_platform.core import schema
from iiot_platform.core.capture_log import GAP_TOPIC, Record
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from tests.servers.engines import LINE, contents, drain, engine_at, rows_of
from tests.servers.streams import BASE_MS, signal

BAD = 0x8000_0000


def gap(payload: bytes) -> Record:
    return Record("opcua", f"{GAP_TOPIC}plc1", payload, (BASE_MS + 9_000) * 1_000)


def test_a_gap_is_a_row_and_no_quarantined_message(home: Home) -> None:
    told = {"begin_ms": BASE_MS + 1_000, "end_ms": BASE_MS + 8_500, "reason": "server restarted"}
    engine = engine_at(home.root, [signal("t", BASE_MS, 1.0), gap(json.dumps(told).encode())])
    drain(engine, [1_000])
    hour = hour_of(BASE_MS)
    row = rows_of(engine, schema.GAPS, hour).to_pylist()[0]
    assert (row["source"], row["duration_s"], row["reason"]) == ("plc1", 7.5, "server restarted")
    assert len(rows_of(engine, schema.QUARANTINE, hour)) == 0
    assert sum(rows_of(engine, schema.LINE_SUMMARY, hour).column("quarantined").to_pylist()) == 0
    quality = rows_of(engine, schema.DATA_QUALITY, hour).to_pylist()
    assert [(found["reason"], found["count"]) for found in quality] == [("gap", 1)]
    before = contents(engine)
    engine.rerun(LINE, hour, run_id="again")
    assert contents(engine) == before


def test_a_gap_that_was_filled_stands_beside_the_gap(home: Home) -> None:
    told = {"begin_ms": BASE_MS, "end_ms": BASE_MS + 1_000, "reason": "server restarted"}
    filled = {**told, "filled": 7, "complete": True}
    records = [gap(json.dumps(one).encode()) for one in (told, filled)]
    engine = engine_at(home.root, [signal("t", BASE_MS, 1.0), *records])
    drain(engine, [1_000])
    rows = rows_of(engine, schema.GAPS, hour_of(BASE_MS)).to_pylist()
    assert [(row["filled"], row["complete"]) for row in rows] == [(None, None), (7, True)]


def test_a_damaged_gap_is_quarantined(home: Home) -> None:
    engine = engine_at(home.root, [gap(b"{"), gap(b'{"begin_ms": 1}'), signal("t", BASE_MS, 1.0)])
    drain(engine, [1_000])
    hour = hour_of(BASE_MS)
    assert len(rows_of(engine, schema.QUARANTINE, hour)) == 2
    assert len(rows_of(engine, schema.SIGNALS, hour)) == 1


def test_a_bad_value_that_is_none_says_so(home: Home) -> None:
    nothing = signal("t", BASE_MS, 1.0)._replace(payload=b'{"SensorValue": null}', quality=BAD)
    engine = engine_at(home.root, [nothing])
    report = engine.run_batch(LINE, run_id="live")
    assert report is not None
    assert report.quarantined == {"bad_quality": 1}
