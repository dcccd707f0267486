"""Gaps that the buffer wrote stand in their table; a damaged one stops nothing."""

import json
import math

import pytest

from iiot_platform.core import schema
from iiot_platform.core.capture_log import GAP_TOPIC, Record
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from tests.servers.engines import LINE, contents, drain, engine_at, rows_of
from tests.servers.streams import BASE_MS, signal

BAD = 0x8000_0000
ENDLESS = b'{"begin_ms": 0, "end_ms": 9223372036854775807, "reason": ""}'


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


@pytest.mark.parametrize(
    ("later", "missing_s"),
    [(None, 7.5), ({"filled": 3, "complete": False}, 7.5), ({"filled": 9, "complete": True}, 0.0)],
)
def test_the_summary_says_how_long_data_is_missing(
    home: Home, later: dict[str, object] | None, missing_s: float
) -> None:
    told = {"begin_ms": BASE_MS + 1_000, "end_ms": BASE_MS + 8_500, "reason": "server restarted"}
    records = [gap(json.dumps(told).encode())]
    if later is not None:
        at_us = records[0].received_ts + 60_000_000
        again = gap(json.dumps({**told, **later}).encode())
        records.append(again._replace(received_ts=at_us))
    engine = engine_at(home.root, records)
    drain(engine, [1])
    rows = rows_of(engine, schema.LINE_SUMMARY, hour_of(BASE_MS)).column("missing_s").to_pylist()
    assert rows[0] == 7.5
    assert sum(rows) == missing_s


def test_a_damaged_gap_is_quarantined(home: Home) -> None:
    engine = engine_at(
        home.root, [gap(b"{"), gap(b'{"begin_ms": 1}'), gap(ENDLESS), signal("t", BASE_MS, 1.0)]
    )
    drain(engine, [1_000])
    hour = hour_of(BASE_MS)
    assert len(rows_of(engine, schema.QUARANTINE, hour)) == 3
    assert len(rows_of(engine, schema.SIGNALS, hour)) == 1


def test_a_bad_signal_without_a_value_is_a_row_that_no_detector_learns_from(home: Home) -> None:
    missing = range(30, 40)
    records = [
        signal("t", BASE_MS + 1_000 * i, 20.0 + i % 7)._replace(source_ts=1_000 * BASE_MS + i)
        for i in range(60)
    ]
    for i in missing:
        at_us = 1_000 * (BASE_MS + 1_000 * i)
        payload = b'{"SensorValue": null}'
        records[i] = records[i]._replace(payload=payload, source_ts=at_us, quality=BAD)
    engine = engine_at(home.root, records)
    drain(engine, [7])
    hour = hour_of(BASE_MS)
    readings = rows_of(engine, schema.READINGS, hour).sort_by("ts").to_pylist()
    assert [i for i, row in enumerate(readings) if row["quality"] == BAD] == list(missing)
    assert all(math.isnan(readings[i]["values"][0]) for i in missing)
    assert len(rows_of(engine, schema.QUARANTINE, hour)) == 0
    verdicts = rows_of(engine, schema.SIGNAL_ANOMALIES, hour).sort_by("ts").to_pylist()
    assert {verdicts[i]["status"] for i in missing} == {"bad_quality"}

    without = [record for i, record in enumerate(records) if i not in missing]
    other = engine_at(home.root / "other", without)
    drain(other, [7])
    same = rows_of(other, schema.SIGNAL_ANOMALIES, hour).sort_by("ts").to_pylist()
    for row, alike in zip(
        [row for i, row in enumerate(verdicts) if i not in missing], same, strict=True
    ):
        assert (row["model_avg"], row["model_std"]) == (alike["model_avg"], alike["model_std"])
    before = contents(engine)
    engine.rerun(LINE, hour, run_id="again")
    assert contents(engine) == before


def test_a_bad_state_without_a_value_is_a_row_that_ends_nothing(home: Home) -> None:
    told = [None, 1, None, 1, 2, None]
    records = [
        signal("s", BASE_MS, 1.0)._replace(
            payload=json.dumps({"StateValue": value}).encode(),
            source_ts=1_000 * (BASE_MS + 1_000 * i),
            quality=0 if value is not None else BAD,
        )
        for i, value in enumerate(told)
    ]
    engine = engine_at(home.root, records)
    drain(engine, [1])
    hour = hour_of(BASE_MS)
    assert len(rows_of(engine, schema.QUARANTINE, hour)) == 0
    readings = rows_of(engine, schema.READINGS, hour).sort_by("ts").to_pylist()
    assert [(row["state"], row["quality"]) for row in readings] == [
        (value, 0 if value is not None else BAD) for value in told
    ]
    rows = rows_of(engine, schema.STATES, hour).sort_by("ts").to_pylist()
    assert [(row["value"], row["previous_value"], row["duration_s"]) for row in rows] == [
        (None, None, 0.0),
        (1, 1, 0.0),
        (None, 1, 0.0),
        (1, 1, 0.0),
        (2, 1, 3.0),
        (None, 2, 0.0),
    ]
    before = contents(engine)
    engine.rerun(LINE, hour, run_id="again")
    assert contents(engine) == before


def test_what_has_no_value_is_set_aside_where_it_is_called_good_or_has_no_kind(home: Home) -> None:
    payloads = (b'{"SensorValue": null}', b'{"StateValue": null}')
    good = [signal("t", BASE_MS, 1.0)._replace(payload=payload) for payload in payloads]
    bad = [
        signal("s", BASE_MS, 1.0)._replace(payload=payload, quality=BAD)
        for payload in (b"null", b'{"SensorValue": null, "StateValue": null}')
    ]
    engine = engine_at(home.root, [*good, *bad])
    report = engine.run_batch(LINE, run_id="live")
    assert report is not None
    assert report.quarantined == {"wrong_type": 2, "bad_quality": 2}
