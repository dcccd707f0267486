"""Hours whose raw records are gone are computed from their readings, to the same bits."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.capture_log import GAP_TOPIC, Record
from iiot_platform.core.consumption import Consumption, read_consumption
from iiot_platform.core.paths import Home
from iiot_platform.engine.consumed import consumption, publish
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.explain import Explainer
from iiot_platform.engine.lineage import batches_of_run
from iiot_platform.engine.log_verify import SealedLog
from iiot_platform.engine.replay import replay
from tests.servers.capture_log import write_segments
from tests.servers.engines import LINE, PLANT, contents, drain, engine_at, rows_of, settle
from tests.servers.streams import BASE_MS, HOUR_MS, disturb, line_records, signal

LATER_MS = BASE_MS + 30 * HOUR_MS


def other_plant() -> Plant:
    kinds = ("signal", "vibration", "valve", "electrical")
    given = {"window": 15, "threshold": 1.5, "rate_window": 10, "relearn_after": 4}
    return Plant.model_validate({"lines": [LINE], "defaults": dict.fromkeys(kinds, given)})


def trim(home: Home, offset: int) -> int:
    """Deletes the segments before an offset, as the buffer does; returns where the log begins."""
    gone = [s for s in SealedLog(home).segments(LINE)[:-1] if s.hi <= offset]
    if not gone:
        return 0
    with closing(sqlite3.connect(home.manifest)) as manifest, manifest:
        manifest.execute("DELETE FROM segments WHERE stream = ? AND hi <= ?", (LINE, gone[-1].hi))
        manifest.execute(
            "INSERT OR REPLACE INTO anchors VALUES (?, ?, ?, 0)",
            (LINE, gone[-1].hi, gone[-1].chain_hash),
        )
    for segment in gone:
        (home.capture / segment.path).unlink(missing_ok=True)
    return gone[-1].hi


def lose(home: Home, number: int) -> tuple[int, int]:
    """Sets a damaged segment aside, as the buffer does."""
    segment = SealedLog(home).segments(LINE)[number]
    with closing(sqlite3.connect(home.manifest)) as manifest, manifest:
        manifest.execute("DELETE FROM segments WHERE stream = ? AND lo = ?", (LINE, segment.lo))
        row = (LINE, segment.lo, segment.hi, "", "a test", segment.chain_hash, 0)
        manifest.execute("INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    (home.capture / segment.path).unlink()
    return segment.lo, segment.hi


def deliveries(seed: int) -> list[Record]:
    """Messages with disorder, duplicates and rubbish, and a gap that is filled later."""
    found = disturb(line_records(seed, 150), seed)
    at = found[len(found) // 3]
    told = b'{"begin_ms":%d,"end_ms":%d,"reason":"away"%%b}' % (BASE_MS, BASE_MS + 5_000)
    gap, filled = (
        Record("mqtt", f"{GAP_TOPIC}mqtt", told % more, at.received_ts)
        for more in (b"", b',"filled":3,"complete":true')
    )
    return [*found[:50], gap, filled, *found[50:]]


def computed(folder: Path, records: list[Record]) -> Engine:
    engine = engine_at(folder, records, clock=lambda: LATER_MS)
    drain(engine, [40, 200])
    settle(engine)
    for hour in engine.unsettled_hours(LINE):
        engine.rerun(LINE, hour, run_id="settle", kind="settle")
    return engine


def again(engine: Engine, *, under: Plant) -> dict[tuple[str, int], str]:
    other = Engine(Home(engine.store._folder.parent), under, clock=lambda: LATER_MS)
    for hour in other.ledger.hours(LINE):
        other.rerun(LINE, hour, run_id="again", settings="current", kind="backfill")
    found = contents(other)
    other.close()
    return found


@pytest.mark.parametrize(("seed", "share"), [(2, 0.6), (7, 0.95)])
def test_a_rerun_without_raw_equals_one_with_it(tmp_path: Path, seed: int, share: float) -> None:
    records = deliveries(seed)
    whole, cut = (computed(tmp_path / name, records) for name in ("whole", "cut"))
    assert contents(whole) == contents(cut)
    home = Home(tmp_path / "cut")
    start = trim(home, int(share * len(records)))
    if seed % 2:
        lose(home, random.Random(seed).randrange(len(SealedLog(home).segments(LINE))))
    for plant in (PLANT, other_plant()):
        assert again(whole, under=plant) == again(cut, under=plant)
    assert cut.log.start(LINE) == start


def test_what_is_computed_from_readings_says_so(home: Home) -> None:
    records = [signal("t", BASE_MS + i * 60_000, float(i % 7)) for i in range(100)]
    engine = computed(home.root, records)
    first, second = engine.ledger.hours(LINE)
    start = trim(home, 45)
    found = engine.rerun(LINE, first, run_id="again")
    assert (found.equal, found.report.kept_below, start) == (True, 40, 40)
    assert engine.rerun(LINE, second, run_id="other").report.kept_below == 0
    (batch,) = batches_of_run(engine.ledger, LINE, "again", first)
    assert batch.kept_below == 40
    explainer = Explainer(engine.log, engine.ledger, engine.store, LINE)
    key = explainer.series(schema.SIGNALS, "t")
    old = explainer.explain(schema.SIGNALS, key, BASE_MS + 5 * 60_000)
    assert (old.raw[0].file, old.raw[0].gone) == (None, "retention")
    young = explainer.explain(schema.SIGNALS, key, BASE_MS + 50 * 60_000)
    assert young.raw[0].file is not None


def test_late_rows_join_an_hour_whose_raw_is_gone(home: Home, tmp_path: Path) -> None:
    records = [signal("t", BASE_MS + i * 60_000, float(i % 7)) for i in range(100)]
    late = [signal("t", BASE_MS + 30_500, 3.0, received=LATER_MS)]
    late.append(records[4]._replace(received_ts=LATER_MS * 1_000))  # a duplicate of what is gone
    engines = [computed(folder, records) for folder in (home.root, tmp_path / "whole")]
    trim(home, 80)
    for engine, folder in zip(engines, (home.root, tmp_path / "whole"), strict=True):
        write_segments(Home(folder), LINE, late)
        engine.run_batch(LINE, run_id="late")
        settle(engine)
    assert contents(engines[0]) == contents(engines[1])
    hour = engines[0].ledger.hours(LINE)[0]
    assert 3.0 in rows_of(engines[0], schema.SIGNALS, hour).column("value").to_pylist()


def test_a_replay_reads_what_is_kept(home: Home, tmp_path: Path) -> None:
    records = line_records(3, 80)
    engines = [computed(folder, records) for folder in (home.root, tmp_path / "whole")]
    trim(home, 60)
    candidate = other_plant().line_settings(LINE)
    found = [
        list(replay(e.log, e.ledger, e.store, candidate, e.ledger.hours(LINE))) for e in engines
    ]
    for one, other in zip(*found, strict=True):
        assert {k: str(v) for k, v in one.candidate.items()} == {
            k: str(v) for k, v in other.candidate.items()
        }


def test_a_batch_goes_on_behind_what_was_lost(home: Home) -> None:
    records = [signal("t", BASE_MS + i * 1_000, float(i % 7)) for i in range(40)]
    engine = engine_at(home.root, records, clock=lambda: LATER_MS)
    lose(home, 1)
    drain(engine, [10])
    assert engine.ledger.watermark(LINE) == 40
    assert len(rows_of(engine, schema.READINGS, engine.ledger.hours(LINE)[0])) == 30


def test_a_hole_that_nobody_knows_of_is_still_an_error(home: Home) -> None:
    records = [signal("t", BASE_MS + i * 1_000, float(i % 7)) for i in range(40)]
    engine = computed(home.root, records)
    (home.capture / SealedLog(home).segments(LINE)[1].path).unlink()
    with pytest.raises(Exception, match="can not be read"):
        engine.rerun(LINE, engine.ledger.hours(LINE)[0], run_id="again")


def test_needed_is_what_is_open_unsettled_or_dirty(home: Home) -> None:
    now = [BASE_MS + 90 * 60_000]
    records = [signal("t", BASE_MS + i * 60_000, float(i % 7)) for i in range(90)]
    engine = engine_at(home.root, records, clock=lambda: now[0])
    drain(engine, [60])
    assert consumption(engine, LINE) == Consumption(90, 0)
    engine.rerun(LINE, engine.ledger.hours(LINE)[0], run_id="settle", kind="settle")
    assert consumption(engine, LINE) == Consumption(90, 60)
    now[0] = LATER_MS
    assert consumption(engine, LINE) == Consumption(90, 60)
    engine.rerun(LINE, engine.ledger.hours(LINE)[1], run_id="settle", kind="settle")
    assert publish(home, engine, engine.lines) == {LINE: Consumption(90, 90)}
    write_segments(home, LINE, [signal("t", BASE_MS + 500, 1.0, received=LATER_MS)])
    engine.run_batch(LINE, run_id="late")
    assert consumption(engine, LINE) == Consumption(91, 0)
    publish(home, engine, engine.lines)
    assert read_consumption(home)[0] == {LINE: Consumption(91, 0)}
    settle(engine)
    assert consumption(engine, LINE) == Consumption(91, 91)
