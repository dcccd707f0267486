"""A closed hour computed whole: equal, or different with a reason."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from iiot_platform.config.plant import Plant
from iiot_platform.core import schema
from iiot_platform.core.capture_log import Record
from iiot_platform.core.clock import hour_of
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.errors import HourOpenError
from iiot_platform.engine.partitions import partition
from iiot_platform.engine.report import Difference, SettleReport
from tests.servers.capture_log import write_segments
from tests.servers.streams import BASE_MS, HOUR_MS, line_records, signal

LINE = "line1"
GRACE_MS = 300_000
HOUR = hour_of(BASE_MS)
END = BASE_MS + HOUR_MS
SIGNAL = "signal/press/t/"


def plant(**signal_settings: object) -> Plant:
    return Plant.model_validate(
        {"lines": [LINE], "defaults": {"signal": {"window": 10, **signal_settings}}}
    )


def readings(start: int = BASE_MS, *, count: int = 60, device: str = "t") -> list[Record]:
    return [signal(device, start + i * 50_000, 20.0 + i % 5) for i in range(count)]


def engine_of(home: Home, *, at: int = END + GRACE_MS, **signal_settings: object) -> Engine:
    return Engine(home, plant(**signal_settings), clock=lambda: at)


def take(engine: Engine, records: list[Record], *, rows: int = 20) -> None:
    write_segments(Home(engine.store.path("").parent), LINE, records, rows=rows)
    while engine.run_batch(LINE, run_id=f"live{engine.ledger.watermark(LINE)}", row_cap=rows):
        pass


def settle(engine: Engine, hour: int = HOUR, run_id: str = "settle") -> SettleReport:
    return engine.rerun(LINE, hour, run_id=run_id, kind="settle")


def reasons(report: SettleReport) -> set[tuple[str, str]]:
    return {(found.series, found.reason) for found in report.differences}


def files(engine: Engine, hour: int = HOUR) -> dict[str, int]:
    return {name: len(found) for name, found in engine.ledger.hour_files(LINE, hour).items()}


def test_in_order_data_is_equal_and_becomes_one_file_per_table(home: Home) -> None:
    engine = engine_of(home)
    take(engine, line_records(1, 120, spread_ms=HOUR_MS))
    assert max(files(engine).values()) > 1
    report = settle(engine)
    assert report.equal
    assert set(files(engine).values()) == {1}
    assert (report.report.state, report.report.complete) == ("settled", True)
    assert engine.ledger.batches(LINE, 1)[0]["kind"] == "settle"
    assert engine.unsettled_hours(LINE) == []


def test_disorder_within_the_hour_is_equal_too(home: Home) -> None:
    engine = engine_of(home)
    records = readings()
    take(engine, [*records[30:], *records[:30], *records[10:20]])
    assert settle(engine).equal


def test_a_settled_hour_is_settled_again_without_a_new_file(home: Home) -> None:
    engine = engine_of(home)
    take(engine, readings())
    settle(engine)
    before = engine.ledger.hour_files(LINE, HOUR)
    on_disk = sorted(engine.store.path("").rglob("*.parquet"))
    again = settle(engine, run_id="again")
    assert again.kept
    assert again.equal
    assert engine.ledger.hour_files(LINE, HOUR) == before
    assert sorted(engine.store.path("").rglob("*.parquet")) == on_disk
    assert [batch["run_id"] for batch in engine.ledger.batches(LINE, 2)] == ["again", "settle"]


def test_an_hour_is_unsettled_once_its_grace_is_over(home: Home) -> None:
    take(engine_of(home), [*readings(), *readings(END, count=3)])
    early = engine_of(home, at=END + GRACE_MS - 1)
    assert early.unsettled_hours(LINE) == []
    with pytest.raises(HourOpenError, match="its grace is not over"):
        settle(early)
    late = engine_of(home, at=END + HOUR_MS + GRACE_MS)
    assert late.unsettled_hours(LINE) == [HOUR, HOUR + 1]


def test_a_row_that_comes_after_the_grace_is_late(home: Home) -> None:
    engine = engine_of(home)
    take(engine, [*readings(), *readings(END, count=5)])
    take(engine, [signal("t", BASE_MS + 1, 25.0, received=END + GRACE_MS)])
    report = settle(engine)
    assert reasons(report) >= {(SIGNAL, "late")}
    assert {reason for _, reason in reasons(report)} == {"late"}
    assert Difference("line_summary", "", "late") in report.differences
    assert not report.defects
    assert settle(engine).equal
    assert engine.dirty_hours(LINE) == [HOUR + 1]
    assert {reason for _, reason in reasons(settle_at(home, HOUR + 1))} == {"earlier hour changed"}


def settle_at(home: Home, hour: int) -> SettleReport:
    return settle(engine_of(home, at=(hour + 1) * HOUR_MS + GRACE_MS), hour)


def test_a_row_that_comes_in_time_behind_its_series_is_disordered(home: Home) -> None:
    engine = engine_of(home)
    take(engine, [*readings(), *readings(END, count=5)])
    take(engine, [signal("t", BASE_MS + 1, 25.0, received=END + GRACE_MS - 1)])
    assert {reason for _, reason in reasons(settle(engine))} == {"disordered"}


def test_rows_under_assigned_settings_that_are_others_say_so(home: Home) -> None:
    engine = engine_of(home, threshold=5.0)
    take(engine, [*readings(), signal("t", END - 1, 400.0)])
    other = engine_of(home, threshold=1_000_000.0)
    assert other.outdated_hours(LINE) == [HOUR]
    assert settle(other).equal  # the hour keeps its own
    report = other.rerun(LINE, HOUR, run_id="new", settings="current", kind="settle")
    assert {reason for _, reason in reasons(report)} == {"settings changed"}
    assert {"signal_anomalies", "line_summary"} <= {found.table for found in report.differences}
    assert other.outdated_hours(LINE) == []
    rows = other.store.read(
        schema.SIGNALS,
        [file.path for file in other.ledger.files(LINE, "signals", HOUR)],
    )
    assert set(rows.column("config_version").to_pylist()) == {report.report.settings_version}


def tampered(path: Path) -> None:
    rows = pq.read_table(path)
    at = rows.column_names.index("value")
    values = rows.column(at).to_pylist()
    values[3] += 1.0
    pq.write_table(rows.set_column(at, "value", [values]), path)


@pytest.mark.parametrize("harm", [tampered, Path.unlink, lambda path: path.write_bytes(b"?")])
def test_rows_that_differ_without_a_reason_are_a_defect_and_repaired(
    home: Home, harm: Callable[[Path], None]
) -> None:
    engine = engine_of(home)
    take(engine, [*readings(), *readings(device="u")])
    settle(engine)
    harm(engine.store.path(engine.ledger.files(LINE, "signals", HOUR)[0].path))
    report = settle(engine, run_id="repair")
    assert {found.table for found in report.differences} == {"signals"}
    assert report.defects == report.differences
    assert len(report.differences) == 1
    assert settle(engine, run_id="check").equal


def test_an_older_code_version_explains_a_difference(home: Home) -> None:
    engine = engine_of(home)
    take(engine, readings())
    tampered(engine.store.path(engine.ledger.files(LINE, "signals", HOUR)[0].path))
    with engine.ledger.transaction() as connection:
        connection.exec_driver_sql("UPDATE batches SET code_version = 'older'")
    assert reasons(settle(engine)) == {(SIGNAL, "code changed")}


def test_a_live_batch_after_settling_makes_the_hour_unsettled(home: Home) -> None:
    engine = engine_of(home)
    take(engine, readings())
    settle(engine)
    take(engine, [signal("t", END - 1, 20.0)])
    assert engine.unsettled_hours(LINE) == [HOUR]
    found = partition(engine.ledger, LINE, HOUR)
    assert found is not None
    assert not found.settled


def test_late_rows_and_what_was_set_aside_are_counted_by_reason(home: Home) -> None:
    engine = engine_of(home)
    bad = readings(count=1)[0]._replace(payload=b"{")
    take(engine, [bad, *readings(), signal("t", END - 1, 20.0, received=END + GRACE_MS), bad])
    expected = [("not_json", 2), ("late", 1)]
    for run in ("live", "settle"):
        quality = engine.store.read(
            schema.DATA_QUALITY,
            [file.path for file in engine.ledger.files(LINE, "data_quality", HOUR)],
        )
        counted = quality.select(["reason", "count"]).to_pylist()
        assert [(row["reason"], row["count"]) for row in counted] == expected, run
        assert settle(engine).equal
    late = engine.store.read(
        schema.LATE_ROWS, [file.path for file in engine.ledger.files(LINE, "late_rows", HOUR)]
    ).to_pylist()
    assert [(row["series"], row["lateness_s"]) for row in late] == [(SIGNAL, 300.001)]


def test_the_checkpoint_handed_on_is_the_one_started_from(home: Home) -> None:
    engine = engine_of(home, at=END + HOUR_MS + GRACE_MS)
    take(engine, [*readings(), *readings(END, count=58)])
    first, second = settle(engine).report, settle(engine, HOUR + 1).report
    assert first.checkpoint_out == second.checkpoint_in
    assert len({first.checkpoint_in, first.checkpoint_out, second.checkpoint_out}) == 3
