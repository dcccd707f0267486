from itertools import pairwise
from pathlib import Path

import pytest

from buffer_service.delivery import Delivery, Event, SessionStart, Skipped
from buffer_service.log.batch import Batch
from buffer_service.log.capture import CaptureLog
from buffer_service.log.tail import LENGTH
from iiot_platform.core.capture_log import Record
from iiot_platform.core.paths import Home
from tests.servers.capture_reader import sealed_records

SESSION = "buffer@broker"


def message(packet_id: int, payload: bytes, *, dup: bool = False, generation: int = 1) -> Delivery:
    record = Record("mqtt", "line1/m/d", payload, 1, dup=dup)
    return Delivery("line1", record, (generation, packet_id), SESSION, packet_id)


def commit(log: CaptureLog, *events: Event) -> Batch:
    batch = log.new_batch()
    batch.add("mqtt", events)
    log.commit(batch)
    return batch


def payloads(home: Home) -> list[bytes]:
    with CaptureLog(home) as log:
        log.commit(log.new_batch(), log.seal())
    return [record.payload for record in sealed_records(home, "line1")]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_redelivery_of_what_is_in_the_log_is_dropped_and_acknowledged(home: Home) -> None:
    with CaptureLog(home) as log:
        commit(log, message(1, b"a"), message(2, b"b"))
    with CaptureLog(home) as log:
        batch = commit(log, message(1, b"a", dup=True), message(3, b"c"))
        assert batch.dropped == {"line1": 1}
        assert batch.tokens() == {"mqtt": [(1, 1), (1, 3)]}
    assert payloads(home) == [b"a", b"b", b"c"]


def test_a_redelivery_is_dropped_each_time_it_comes(home: Home) -> None:
    with CaptureLog(home) as log:
        commit(log, message(1, b"a"))
        for _ in range(3):
            commit(log, message(1, b"a", dup=True))
    assert payloads(home) == [b"a"]


def test_a_message_without_dup_is_never_dropped(home: Home) -> None:
    with CaptureLog(home) as log:
        commit(log, message(1, b"a"))
        commit(log, message(1, b"a"), message(1, b"a"))
    assert payloads(home) == [b"a"] * 3


@pytest.mark.parametrize(
    "other", [message(2, b"a", dup=True), message(1, b"b", dup=True)], ids=["id", "payload"]
)
def test_a_redelivery_that_is_not_in_the_log_is_kept(home: Home, other: Delivery) -> None:
    with CaptureLog(home) as log:
        commit(log, message(1, b"a"))
        commit(log, other)
    assert payloads(home) == [b"a", other.record.payload]


def test_the_latest_use_of_a_packet_id_counts(home: Home) -> None:
    with CaptureLog(home) as log:
        commit(log, message(1, b"a"))
        commit(log, message(1, b"b"))
        commit(log, message(1, b"a", dup=True))
    assert payloads(home) == [b"a", b"b", b"a"]


def test_a_new_session_voids_the_tail_for_good(home: Home) -> None:
    with CaptureLog(home) as log:
        commit(log, message(1, b"a"))
        batch = commit(log, SessionStart(SESSION, "subscribe"))
        assert batch.tokens() == {"mqtt": ["subscribe"]}
    with CaptureLog(home) as log:
        commit(log, message(1, b"a", dup=True))
    assert payloads(home) == [b"a", b"a"]


def test_a_new_session_voids_what_waits_in_the_same_batch(home: Home) -> None:
    with CaptureLog(home) as log:
        commit(
            log, message(1, b"a"), SessionStart(SESSION, "subscribe"), message(1, b"a", dup=True)
        )
    assert payloads(home) == [b"a", b"a"]


def test_sessions_do_not_know_each_other(home: Home) -> None:
    with CaptureLog(home) as log:
        commit(log, message(1, b"a"))
        commit(log, message(1, b"a", dup=True)._replace(session="other@broker"))
    assert payloads(home) == [b"a", b"a"]


def test_a_waiting_batch_does_not_grow_by_redeliveries(home: Home) -> None:
    with CaptureLog(home) as log:
        batch = log.new_batch()
        batch.add("mqtt", [message(n, b"%d" % n) for n in range(1, 5)])
        for generation in range(2, 100):
            again = [message(n, b"%d" % n, dup=True, generation=generation) for n in range(1, 5)]
            batch.add("mqtt", again)
        assert len(batch) == 4
        assert batch.tokens() == {"mqtt": [(99, n) for n in range(1, 5)]}
        log.commit(batch)
    assert payloads(home) == [b"1", b"2", b"3", b"4"]


def test_whatever_a_broker_may_have_under_way_is_known_again(home: Home) -> None:
    """One small commit, then large ones: an acknowledgement may be lost however old it is."""
    cuts = [0, 3, 500, 20_000, 40_000, LENGTH]
    sent = [message(n, b"%d" % n) for n in range(1, LENGTH + 1)]
    with CaptureLog(home) as log:
        for lo, hi in pairwise(cuts):
            commit(log, *sent[lo:hi])
    again = [event._replace(record=event.record._replace(dup=True)) for event in sent]
    with CaptureLog(home) as log:
        # the broker sends all of them again, some at a time, and is killed once more
        for lo in range(0, LENGTH, 9_000):
            part = again[lo : lo + 9_000]
            assert commit(log, *part).dropped == {"line1": len(part)}
    with CaptureLog(home) as log:
        assert commit(log, *again).dropped == {"line1": LENGTH}
    assert len(payloads(home)) == LENGTH


def test_the_tail_keeps_the_last_deliveries_and_no_more(home: Home) -> None:
    with CaptureLog(home) as log:
        commit(log, message(1, b"first"))
        for _ in range(3):
            for lo in range(1, LENGTH, 5_000):
                stop = min(lo + 5_000, LENGTH + 1)
                commit(log, *[message(n, b"x") for n in range(lo, stop)])
        (rows,) = log._db.execute("SELECT count(*) FROM redelivery_tail").fetchone()
        assert rows <= 15
        assert commit(log, message(1, b"first", dup=True)).dropped == {}


def test_a_tail_from_before_deliveries_were_counted_goes_on(home: Home) -> None:
    with CaptureLog(home) as log:
        commit(log, message(1, b"a"))
        log._db.execute("DROP INDEX redelivery_tail_upto")
        log._db.execute("ALTER TABLE redelivery_tail DROP COLUMN upto")
    with CaptureLog(home) as log:
        commit(log, message(2, b"b"))
        found = commit(log, message(1, b"a", dup=True), message(2, b"b", dup=True))
        assert found.dropped == {"line1": 2}


def test_what_no_line_takes_is_acknowledged_in_its_turn(home: Home) -> None:
    with CaptureLog(home) as log:
        batch = commit(log, message(1, b"a"), Skipped(SESSION, 2, (1, 2)), message(3, b"b"))
        assert batch.tokens() == {"mqtt": [(1, 1), (1, 2), (1, 3)]}
    assert payloads(home) == [b"a", b"b"]
