"""What happened to hours, as it is told to the database behind the tables."""

import json
from typing import Any

from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.capture_log import GAP_TOPIC, Record
from iiot_platform.core.clock import hour_of, hour_start_ms, partition_key, to_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.happenings import happened, mark_told, untold
from tests.servers.engines import LINE, drain, engine_at
from tests.servers.streams import BASE_MS, signal

HOUR = hour_of(BASE_MS)
OTHER = Plant.model_validate({"lines": [LINE], "defaults": {"signal": {"threshold": 9.0}}})


def told(engine: Engine) -> list[dict[str, Any]]:
    found = untold(engine.ledger, engine.store, "influxdb", LINE)
    if found is None:
        return []
    mark_told(engine.ledger, "influxdb", LINE, found.batch)
    ms = found.rows.column("ts").cast("int64").to_pylist()
    return [row | {"ts": at} for row, at in zip(found.rows.to_pylist(), ms, strict=True)]


def test_live_batches_alone_are_nothing_to_tell(home: Home) -> None:
    engine = engine_at(home.root, [signal("t", BASE_MS + 60_000 * i, 1.0) for i in range(90)])
    drain(engine, [10])
    assert told(engine) == []
    assert untold(engine.ledger, engine.store, "influxdb", LINE) is None


def test_a_gap_is_told_where_it_was_and_again_once_it_is_filled(home: Home) -> None:
    said = {"begin_ms": BASE_MS + 1_000, "end_ms": BASE_MS + 8_500, "reason": "no answer"}
    records = [signal("t", BASE_MS, 1.0)]
    for i, one in enumerate((said, {**said, "filled": 7, "complete": True})):
        at_us = (BASE_MS + 9_000 + i) * 1_000
        records.append(Record("opcua", f"{GAP_TOPIC}plc1", json.dumps(one).encode(), at_us))
    engine = engine_at(home.root, records)
    drain(engine, [1_000])
    first, filled = told(engine)
    assert (first["ts"], first["until_ms"], first["kind"]) == (
        BASE_MS + 1_000,
        BASE_MS + 8_500,
        schema.GAP,
    )
    assert first["text"] == "plc1: no answer, 7.5 s"
    assert filled == first | {"text": "plc1: no answer, 7.5 s, 7 values filled in"}
    assert first["hour"] == partition_key(HOUR)


def test_a_rerun_is_told_with_its_run_for_the_whole_hour(home: Home) -> None:
    engine = engine_at(home.root, [signal("t", BASE_MS + 1_000 * i, 1.0) for i in range(10)])
    drain(engine, [10])
    told(engine)
    engine.rerun(LINE, HOUR, run_id="again")
    (row,) = told(engine)
    assert (row["kind"], row["run_id"]) == ("rerun", "again")
    assert (row["ts"], row["until_ms"]) == (hour_start_ms(HOUR), hour_start_ms(HOUR + 1))
    assert told(engine) == []


def test_what_happened_is_told_as_it_stands_now(home: Home) -> None:
    said = {"begin_ms": BASE_MS + 1_000, "end_ms": BASE_MS + 8_500, "reason": "no answer"}
    records = [signal("t", BASE_MS + 1_000 * i, 1.0) for i in range(10)]
    for i, one in enumerate((said, {**said, "filled": 7, "complete": True})):
        at_us = (BASE_MS + 9_000 + i) * 1_000
        records.append(Record("opcua", f"{GAP_TOPIC}plc1", json.dumps(one).encode(), at_us))
    engine = engine_at(home.root, records)
    drain(engine, [1_000])
    for run in ("again", "and again"):
        engine.rerun(LINE, HOUR, run_id=run)
    ledger, store = engine.ledger, engine.store

    found = happened(ledger, store, LINE, range(HOUR, HOUR + 1)).to_pylist()

    assert [(row["kind"], row["run_id"]) for row in found if row["kind"] != schema.GAP] == [
        ("rerun", "and again")
    ]
    (gap,) = (row for row in found if row["kind"] == schema.GAP)
    assert gap["text"] == "plc1: no answer, 7.5 s, 7 values filled in"
    assert (to_ms(gap["ts"]), gap["until_ms"]) == (BASE_MS + 1_000, BASE_MS + 8_500)
    assert happened(ledger, store, LINE, range(HOUR + 1, HOUR + 9)).num_rows == 0


def test_settings_are_told_at_the_first_hour_that_has_them(home: Home) -> None:
    records = [signal("t", BASE_MS + 600_000 * i, 1.0) for i in range(18)]
    cut = next(i for i, one in enumerate(records) if hour_of(one.received_ts // 1_000) > HOUR)
    clock = lambda: BASE_MS + 18 * 600_000  # noqa: E731 - the last record has just come
    first = engine_at(home.root, records[:cut], clock=clock)
    drain(first, [10])
    assert happened(first.ledger, first.store, LINE, range(HOUR, HOUR + 9)).num_rows == 0
    first.close()
    changed = engine_at(home.root, records[cut:], OTHER, clock=clock)
    drain(changed, [100])

    whole, later, behind = (
        happened(changed.ledger, changed.store, LINE, range(HOUR + n, HOUR + 9)).to_pylist()
        for n in range(3)
    )
    (row,) = whole
    assert (row["kind"], row["hour"]) == (schema.SETTINGS_CHANGED, partition_key(HOUR + 1))
    assert later == whole
    assert behind == []
