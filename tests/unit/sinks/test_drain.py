from collections.abc import Callable

import pyarrow as pa
import pytest

from iiot_platform.core import clock, schema
from iiot_platform.core.errors import SinkError
from iiot_platform.sinks.drain import DrainReport, drain
from iiot_platform.sinks.refusals import RefusedError
from iiot_platform.sinks.sink import Written
from tests.reference.memory_outbox import MemoryOutbox
from tests.reference.table_rows import make_rows

NOW_MS = 1_795_338_000_000
HOUR = clock.hour_of(NOW_MS)


class MemorySink:
    """Notes what it is asked to do; a poisoned value is refused, like a server would."""

    request_rows = 100

    def __init__(self, journal: list[str], before: Callable[[], None] = lambda: None) -> None:
        self.journal = journal
        self.before = before

    def write(self, table: schema.Table, rows: pa.Table) -> Written:
        self.before()
        if "poison" in rows.column("sensor_name").to_pylist():
            raise RefusedError(f"poison in {table.name}")
        self.journal.append(f"write {table.name} {rows.num_rows}")
        return Written(rows.num_rows - 1, 1)

    def rewrite(
        self, table: schema.Table, line: str, start_ms: int, end_ms: int, rows: pa.Table
    ) -> Written:
        self.before()
        assert (start_ms, end_ms) == (HOUR * clock.MS_PER_HOUR, (HOUR + 1) * clock.MS_PER_HOUR)
        self.journal.append(f"delete {table.name} of {line}")
        return self.write(table, rows)


def rows(count: int = 2, sensor: str = "temp") -> pa.Table:
    return make_rows(schema.SIGNALS, count, sensor_name=[sensor] * count)


def run(outbox: MemoryOutbox, sink: MemorySink, *, deadline_s: float = 60.0) -> DrainReport:
    return drain(outbox, sink, "line1", deadline_s=deadline_s, now_ms=lambda: NOW_MS)


def test_entries_are_done_in_order_and_neighbouring_upserts_together() -> None:
    outbox = MemoryOutbox()
    outbox.add("signals", HOUR, "upsert", rows())
    outbox.add("signals", HOUR, "upsert", rows(3))
    outbox.add("signals", HOUR, "rewrite", rows(4))
    outbox.add("signals", HOUR, "upsert", rows(6))
    outbox.add("valve_anomalies", HOUR, "upsert", make_rows(schema.VALVE_ANOMALIES, 5))
    report = run(outbox, MemorySink(outbox.journal))
    assert outbox.journal == [
        "write signals 5",
        "done 0 1",
        "begin 2",
        "delete signals of line1",
        "write signals 4",
        "done 2",
        "write signals 6",
        "done 3",
        "write valve_anomalies 5",
        "done 4",
    ]
    assert (report.points, report.dropped, report.entries, report.remaining) == (16, 4, 5, 0)
    assert report.error is None


def test_a_backlog_of_small_batches_fills_requests_table_by_table() -> None:
    outbox = MemoryOutbox()
    for _ in range(3):
        outbox.add("valve_anomalies", HOUR, "upsert", make_rows(schema.VALVE_ANOMALIES, 4))
        outbox.add("signals", HOUR, "upsert", rows(2))
    outbox.add("signals", HOUR, "rewrite", rows(1))
    outbox.add("valve_anomalies", HOUR, "upsert", make_rows(schema.VALVE_ANOMALIES, 1))
    run(outbox, MemorySink(outbox.journal))
    assert outbox.journal == [
        "write signals 6",
        "done 1 3 5",
        "begin 6",
        "delete signals of line1",
        "write signals 1",
        "done 6",
        "write valve_anomalies 13",
        "done 0 2 4 7",
    ]


def test_upserts_are_joined_up_to_one_request() -> None:
    outbox = MemoryOutbox()
    for count in (MemorySink.request_rows - 2, 2, 1):
        outbox.add("signals", HOUR, "upsert", rows(count))
    run(outbox, MemorySink(outbox.journal))
    assert outbox.journal == [
        f"write signals {MemorySink.request_rows}",
        "done 0 1",
        "write signals 1",
        "done 2",
    ]


def test_more_entries_than_a_page_are_done() -> None:
    outbox = MemoryOutbox()
    for _ in range(200):
        outbox.add("signals", HOUR, "upsert", rows(1))
    assert run(outbox, MemorySink(outbox.journal)).entries == 200
    assert outbox.entries == {}


def test_a_deadline_ends_the_drain_after_what_has_begun() -> None:
    outbox = MemoryOutbox()
    for _ in range(3):
        outbox.add("signals", HOUR, "rewrite", rows())
    report = run(outbox, MemorySink(outbox.journal), deadline_s=0.0)
    assert (report.entries, report.remaining, report.error) == (1, 2, None)


def test_a_sink_that_is_away_is_left_alone_for_longer_each_time() -> None:
    outbox = MemoryOutbox()
    outbox.add("signals", HOUR, "upsert", rows())

    def away() -> None:
        raise SinkError("away")

    sink = MemorySink(outbox.journal, before=away)
    delays = []
    for _ in range(9):
        report = run(outbox, sink)
        assert (report.error, report.remaining) == ("away", 1)
        assert outbox.retry_at_ms is not None
        delays.append((outbox.retry_at_ms - NOW_MS) / 1_000)
        early = run(outbox, sink)
        assert early.error is not None
        assert "left alone" in early.error
        outbox.retry_at_ms = NOW_MS
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert len(outbox.journal) == 9
    sink.before = lambda: None
    assert run(outbox, sink).entries == 1
    assert (outbox.failure_count, outbox.retry_at_ms) == (0, None)


def test_a_poisoned_entry_is_set_aside_and_the_others_are_done() -> None:
    outbox = MemoryOutbox()
    outbox.add("signals", HOUR, "upsert", rows(2))
    poisoned = outbox.add("signals", HOUR, "upsert", rows(1, "poison"))
    outbox.add("signals", HOUR, "upsert", rows(3))
    report = run(outbox, MemorySink(outbox.journal))
    assert outbox.journal == ["write signals 2", "done 0", "write signals 3", "done 2"]
    assert (report.entries, report.rejected, report.remaining) == (2, 1, 0)
    assert outbox.rejected == {
        poisoned: f"outbox entry 1, hour {clock.partition_key(HOUR)}: poison in signals"
    }


def test_what_is_killed_between_delete_and_write_is_done_again() -> None:
    class Killed(BaseException):
        pass

    outbox = MemoryOutbox()
    outbox.add("signals", HOUR, "rewrite", rows())
    sink = MemorySink(outbox.journal)

    def die() -> None:
        if any(call.startswith("delete") for call in outbox.journal):
            raise Killed

    sink.before = die
    with pytest.raises(Killed):
        run(outbox, sink)
    sink.before = lambda: None
    run(outbox, sink)
    again = ["begin 0", "delete signals of line1"]
    assert outbox.journal == [*again, *again, "write signals 2", "done 0"]
