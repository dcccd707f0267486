"""The way into the quarantine and back, once the plant file is repaired."""

import pytest
import sqlalchemy as sa

from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.canonical import canonical_hash
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.log_reader import without
from iiot_platform.engine.quarantine import Quarantine, add_ranges, retry
from tests.servers.capture_log import write_segments
from tests.servers.streams import BASE_MS, HOUR_MS, signal

LINE = "line1"
HOUR = hour_of(BASE_MS)
DAY_MS = 24 * HOUR_MS


def plant(**line: object) -> Plant:
    return Plant.model_validate({"lines": [{"name": LINE, **line}]})


def drained(home: Home, settings: Plant, prefix: str = "live") -> Engine:
    engine = Engine(home, settings)
    for i in range(1_000):
        if not engine.run_batch(LINE, run_id=f"{prefix}{i}", row_cap=20):
            return engine
    pytest.fail("batches never end")


def contents(engine: Engine) -> dict[tuple[str, int], str]:
    found = {}
    for hour in engine.ledger.hours(LINE):
        for table in schema.TABLES.values():
            files = [file.path for file in engine.ledger.files(LINE, table.name, hour)]
            rows = engine.store.read(table, files)
            if len(rows):
                found[table.name, hour] = canonical_hash(table, rows)
    return found


def set_aside(engine: Engine) -> list[int]:
    return [row.offset for row in Quarantine(engine.ledger, engine.store, LINE).rows()]


def test_a_wrong_topic_shape_is_repaired_and_leaves_nothing_behind(home: Home) -> None:
    records = []
    for i in range(60):
        at = BASE_MS + i * 120_000
        shaped = signal("t", at, float(i % 7))
        if 10 <= i < 50:
            shaped = shaped._replace(topic=f"press/t-{i % 3}")
        records.append(shaped._replace(topic=f"site/{LINE}/{shaped.topic.split('/', 1)[-1]}"))
    bad = records[5]._replace(payload=b"{not json")
    write_segments(home, LINE, [*records, bad], rows=10)
    engine = drained(home, plant())
    assert len(set_aside(engine)) == 61
    repaired = Engine(home, plant(topic="site/{line}/{machine}/{device}"))
    counts: list[int] = []
    report = retry(
        repaired, LINE, run_id="retry", on_hour=lambda told: counts.append(len(told.computed))
    )
    assert (report.tried, report.gone) == (61, 0)
    assert report.decoded == 20
    assert report.stays == {"bad_topic": 40, "not_json": 1}
    assert report.hours == [HOUR, HOUR + 1]
    assert [found.settled.report.hour for found in report.computed] == report.hours
    assert (counts, report.following, report.left) == ([1, 2], 0, 0)
    assert len(set_aside(repaired)) == 41
    other = Home(home.root / "once")
    write_segments(other, LINE, [*records, bad], rows=10)
    once = drained(other, plant(topic="site/{line}/{machine}/{device}"))
    assert contents(repaired) == contents(once)


def test_what_was_too_old_goes_to_the_hour_of_its_event_time(home: Home) -> None:
    old = [
        signal("t", BASE_MS - 9 * DAY_MS + i * 1_000, float(i), received=BASE_MS + i)
        for i in range(5)
    ]
    write_segments(home, LINE, [*old, signal("t", BASE_MS + 10, 1.0)], rows=2)
    engine = drained(home, plant())
    assert [row.reason for row in Quarantine(engine.ledger, engine.store, LINE).rows()] == (
        ["too_old"] * 5
    )
    repaired = Engine(home, plant(max_lateness_s=10 * 86_400))
    report = retry(repaired, LINE, run_id="retry")
    assert report.decoded == 5
    assert report.hours == [HOUR - 9 * 24, HOUR]
    files = repaired.ledger.files(LINE, schema.SIGNALS.name, HOUR - 9 * 24)
    rows = repaired.store.read(schema.SIGNALS, [file.path for file in files])
    assert rows.column("value").to_pylist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert not set_aside(repaired)
    # the ripple: the hour that went on from nothing goes on from these now
    assert repaired.dirty_hours(LINE) in ([], [HOUR])
    repaired.rerun(LINE, HOUR - 9 * 24, run_id="again")
    assert len(repaired.store.read(schema.SIGNALS, [f.path for f in files])) == 5


def test_nothing_is_computed_where_nothing_decodes(home: Home) -> None:
    write_segments(home, LINE, [signal("t", BASE_MS, 1.0)._replace(payload=b"{")])
    engine = drained(home, plant())
    version = engine.ledger.partition_version(LINE, HOUR)
    report = retry(engine, LINE, run_id="retry")
    assert (report.tried, report.decoded, report.hours) == (1, 0, [])
    assert report.stays == {"not_json": 1}
    assert engine.ledger.partition_version(LINE, HOUR) == version


def test_a_reason_limits_what_is_tried_and_what_is_gone_is_told(home: Home) -> None:
    records = [
        signal("t", BASE_MS, 1.0)._replace(payload=b"{"),
        signal("t", BASE_MS + 1, 1.0)._replace(topic="elsewhere/x"),
        signal("t", BASE_MS + 2, 1.0)._replace(topic="elsewhere/x"),
    ]
    write_segments(home, LINE, records, rows=2)
    engine = drained(home, plant())
    engine.log.segments(LINE, 0, 1)[0].path.unlink()
    report = retry(engine, LINE, run_id="retry", reason="bad_topic")
    assert report.tried == 2
    assert report.gone == 1
    assert report.stays == {"bad_topic": 1}


def test_rows_are_found_by_reason_time_and_offset(home: Home) -> None:
    records = [
        signal("t", BASE_MS + i * HOUR_MS // 2, 1.0)._replace(payload=b"{" if i % 2 else b"[]")
        for i in range(6)
    ]
    write_segments(home, LINE, records)
    engine = drained(home, plant())
    quarantine = Quarantine(engine.ledger, engine.store, LINE)
    assert [row.offset for row in quarantine.rows(reason="not_json")] == [1, 3, 5]
    start = BASE_MS + HOUR_MS
    found = quarantine.rows(start_ms=start, end_ms=start + HOUR_MS)
    assert [row.offset for row in found] == [2, 3]
    row = quarantine.at(4)
    assert row is not None
    assert (row.reason, row.payload) == ("not_an_object", b"[]")
    assert quarantine.at(99) is None


def test_ranges_never_overlap(home: Home) -> None:
    engine = Engine(home, plant())
    assert add_ranges(engine.ledger, LINE, HOUR, [(5, 10)]) == [(5, 10)]
    assert add_ranges(engine.ledger, LINE, HOUR, [(0, 20)]) == [(0, 5), (10, 20)]
    assert add_ranges(engine.ledger, LINE, HOUR, [(0, 20), (3, 4)]) == []
    with engine.ledger.reading() as connection:
        rows = connection.execute(sa.select(db.RANGES.c.lo, db.RANGES.c.hi)).all()
    assert sorted(tuple(row) for row in rows) == [(0, 5), (5, 10), (10, 20)]
    assert without([(0, 10)], [(2, 4), (4, 6), (8, 30)]) == [(0, 2), (6, 8)]
