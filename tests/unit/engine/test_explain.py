"""Why a row is as it is: what is told equals what was computed."""

import random
import shutil

import numpy as np
import pytest

from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.clock import hour_of, to_ms
from iiot_platform.core.errors import AnalysisError
from iiot_platform.core.names import SeriesKey
from iiot_platform.core.parameters import DetectorParameters
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine, code_version
from iiot_platform.engine.explain import Explainer, Explanation
from tests.servers.capture_log import write_segments
from tests.servers.ledgers import SQLITE
from tests.servers.streams import BASE_MS, HOUR_MS, electrical, line_records, signal, valve

LINE = "line1"
KEY = SeriesKey(schema.SIGNAL, "press", "t")


def plant(**detector: object) -> Plant:
    small = {"window": 20, "rate_window": 10, "relearn_after": 8, "refractory": 5}
    kinds = ("signal", "vibration", "valve", "electrical")
    return Plant.model_validate(
        {"lines": [LINE], "defaults": dict.fromkeys(kinds, small | detector)}
    )


def drained(home: Home, settings: Plant, cap: int = 40) -> Engine:
    engine = Engine(home, settings)
    for i in range(1_000):
        if not engine.run_batch(LINE, run_id=f"run{i}", row_cap=cap):
            return engine
    pytest.fail("batches never end")


def explainer(engine: Engine) -> Explainer:
    return Explainer(engine.log, engine.ledger, engine.store, LINE)


def explained(engine: Engine, at_ms: int, key: SeriesKey = KEY) -> Explanation:
    return explainer(engine).explain(schema.SIGNAL_ANOMALIES, key, at_ms)


def of_signals(home: Home) -> Engine:
    noise = random.Random(1)
    records = [
        signal("t", BASE_MS + i * 60_000, noise.gauss(20, 1) + (30 if i == 70 else 0))
        for i in range(100)
    ]
    write_segments(home, LINE, records, rows=10)
    return drained(home, plant())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """What every test has a copy of, where it is files alone."""
    home = Home(tmp_path_factory.mktemp("made") / "var")
    of_signals(home).close()
    return home


@pytest.fixture
def signals(home: Home, made: Home, ledger_database: str) -> Engine:
    if ledger_database != SQLITE:
        return of_signals(home)
    shutil.copytree(made.root, home.root)
    return Engine(home, plant())


@pytest.mark.parametrize("minute", [25, 59, 60, 61, 70, 71, 99])
def test_the_window_gives_the_model_of_the_row(signals: Engine, minute: int) -> None:
    found = explained(signals, BASE_MS + minute * 60_000)
    (window,) = found.windows
    assert found.exact
    assert (window.mean, window.std) == (found.row["model_avg"], found.row["model_std"])
    assert len(window.values) == 20
    assert np.mean(window.values) == pytest.approx(found.row["model_avg"])
    assert 50 not in [round(value, -1) for value in window.values]


def test_run_settings_and_raw_message_are_those_of_the_row(signals: Engine) -> None:
    found = explained(signals, BASE_MS + 70 * 60_000)
    assert found.row["anomaly"] == 1
    (batch,) = found.batches
    assert batch.run_id == found.row["run_id"]
    assert batch.lo <= 70 < batch.hi
    assert batch.code_version == code_version()
    assert found.settings == plant().line_settings(LINE)
    detector = found.parameters["detector"]
    assert isinstance(detector, DetectorParameters)
    assert detector.window == 20
    (raw,) = found.raw
    assert raw.offset == 70
    assert b'"SensorName": "t"' in raw.payload
    assert raw.file is not None


def test_a_time_between_rows_gives_the_one_before(signals: Engine) -> None:
    found = explained(signals, BASE_MS + 5 * 60_000 + 1)
    assert (found.ts, found.exact) == (BASE_MS + 5 * 60_000, False)
    assert explained(signals, BASE_MS + 9 * HOUR_MS).ts == BASE_MS + 99 * 60_000
    with pytest.raises(AnalysisError, match="no row of press/t at or before"):
        explained(signals, BASE_MS - 1)


def test_the_newest_row_names_its_series(home: Home) -> None:
    later = [valve("v", BASE_MS + 5_000 + i, "ExtendTime", 300) for i in range(3)]
    write_segments(home, LINE, [signal("t", BASE_MS, 20.0), signal("u", BASE_MS + 9, 1.0), *later])
    found = explainer(drained(home, plant()))
    assert found.newest(schema.SIGNALS, BASE_MS + 8) == KEY
    assert found.newest(schema.SIGNAL_ANOMALIES, BASE_MS + HOUR_MS).name == "u"
    valve_key = SeriesKey(schema.VALVE, "press", "v", "ExtendTime")
    assert found.newest(schema.VALVE_ANOMALIES, BASE_MS + HOUR_MS) == valve_key
    with pytest.raises(AnalysisError, match="no row at or before"):
        found.newest(schema.SIGNALS, BASE_MS - 1)


def test_the_first_row_has_no_window(signals: Engine) -> None:
    found = explained(signals, BASE_MS)
    assert not found.windows
    assert found.window_note == "it is the first row of its series"


def test_an_earlier_version_is_found_after_a_rerun_with_other_settings(signals: Engine) -> None:
    at = BASE_MS + 70 * 60_000
    before = explained(signals, at)
    assert len(before.versions) == 1
    assert not before.ever_different
    changed = Engine(Home(signals.store.path(".").parent), plant(threshold=90))
    changed.rerun(LINE, hour_of(at), run_id="calm", settings="current")
    after = explained(changed, at)
    assert [v.row["anomaly"] if v.row else None for v in after.versions] == [1, 0]
    assert [v.row["run_id"] if v.row else None for v in after.versions] == [
        before.row["run_id"],
        "calm",
    ]
    assert after.ever_different
    assert after.versions[0].dropped_version == after.versions[1].added_version
    assert after.versions[1].dropped_version is None
    assert after.row["z_score_thresh"] == 90


def test_a_rerun_that_changes_nothing_is_a_version_but_no_difference(signals: Engine) -> None:
    at = BASE_MS + 70 * 60_000
    signals.rerun(LINE, hour_of(at), run_id="again")
    found = explained(signals, at)
    assert len(found.versions) == 2
    assert not found.ever_different


def test_a_merge_of_live_parts_is_no_other_version(home: Home) -> None:
    write_segments(home, LINE, [signal("t", BASE_MS + i, 1.0) for i in range(40)], rows=1)
    engine = drained(home, plant(), cap=1)
    found = explained(engine, BASE_MS)
    assert len(found.versions) == 1
    assert found.versions[0].dropped_version is None


def test_files_that_are_gone_are_told(signals: Engine) -> None:
    at = BASE_MS + 70 * 60_000
    changed = Engine(Home(signals.store.path(".").parent), plant(threshold=90))
    changed.rerun(LINE, hour_of(at), run_id="calm", settings="current")
    current = {
        signals.store.path(file.path)
        for hour in signals.ledger.hours(LINE)
        for files in signals.ledger.hour_files(LINE, hour).values()
        for file in files
    }
    for file in signals.store.path(".").rglob("*"):
        if file.is_file() and file not in current:
            file.unlink()
    raw = explained(changed, at).raw[0].file
    assert raw is not None
    signals.log.segments(LINE, 70, 71)[0].path.unlink()
    found = explained(changed, at)
    assert [version.row is None for version in found.versions] == [True, False]
    assert (found.raw[0].file, found.raw[0].payload, found.raw[0].offset) == (None, b"", 70)
    assert found.windows[0].mean == found.row["model_avg"]


def test_a_cycle_names_its_messages_over_the_turn_of_the_hour(home: Home) -> None:
    noise = random.Random(2)
    begin = BASE_MS + HOUR_MS - 20_000
    records = [
        electrical("motor", begin + i * 1_000, noise, running=i % 35 not in (0, 34))
        for i in range(71)
    ]
    write_segments(home, LINE, records, rows=10)
    engine = drained(home, plant())
    key = SeriesKey(schema.ELECTRICAL, "press", "motor")
    at = begin + 34_000
    found = explainer(engine).explain(schema.ELECTRICAL_CYCLES, key, at)
    assert found.exact
    assert found.row["samples"] == 33
    assert found.messages == 34
    assert found.raw[-1].offset == 34
    assert {"detector", "cycle"} == set(found.parameters)


def test_every_row_of_every_tested_table_explains_its_model(home: Home) -> None:
    write_segments(home, LINE, line_records(11, 300, spread_ms=2 * HOUR_MS), rows=20)
    engine = drained(home, plant())
    for table, kind, column in (
        (schema.VIBRATION_ANOMALIES, schema.VIBRATION, "model_avg"),
        (schema.VALVE_ANOMALIES, schema.VALVE, "model_avg"),
    ):
        hour = engine.ledger.hours(LINE)[-1]
        files = [file.path for file in engine.ledger.files(LINE, table.name, hour)]
        for row in engine.store.read(table, files).to_pylist()[-5:]:
            name, operation = row["sensor_name"], row.get("operation_type", "")
            key = SeriesKey(kind, row["machine_name"], name, operation)
            found = explainer(engine).explain(table, key, to_ms(row["ts"]))
            assert (found.windows[0].mean or 0.0) == row[column]


def test_series_are_named_by_what_is_clear_of_them(home: Home) -> None:
    records = [valve("v1", BASE_MS + i, name, 300) for i, name in enumerate(("Extend", "Retract"))]
    write_segments(home, LINE, [*records, signal("t", BASE_MS, 1.0)])
    ask = explainer(drained(home, plant()))
    table = schema.VALVE_ANOMALIES
    expected = SeriesKey(schema.VALVE, "press", "v1", "Extend")
    assert ask.series(table, "press/v1/Extend") == ask.series(table, "v1/Extend") == expected
    with pytest.raises(AnalysisError, match=r"several series: press/v1/Extend, press/v1/Retract"):
        ask.series(table, "v1")
    with pytest.raises(AnalysisError, match="did you mean 'press/v1/Extend'"):
        ask.series(table, "press/v1/Extent")
    with pytest.raises(AnalysisError, match="no series 't'"):
        ask.series(table, "t")
