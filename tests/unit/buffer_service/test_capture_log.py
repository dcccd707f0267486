import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buffer_service.delivery import Delivery
from buffer_service.log.capture import CaptureLog
from iiot_platform.core.capture_log import Record
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home
from tests.servers.capture_reader import sealed_records, unlisted_files
from tests.servers.effort import BROAD

STEPS = [
    "commit.written",
    "commit.durable",
    "seal.written",
    "seal.synced",
    "seal.renamed",
    "seal.folder_synced",
]
HOUR_US = 3_600_000_000


class Crash(BaseException):
    pass


def record(n: int, **fields: object) -> Record:
    return Record("mqtt", f"line1/m/{n % 3}", b'{"n":%d}' % n, n, **fields)  # type: ignore[arg-type]


def fill(log: CaptureLog, records: list[Record], stream: str = "line1") -> None:
    batch = log.new_batch()
    batch.add("mqtt", [Delivery(stream, r, n) for n, r in enumerate(records)])
    log.commit(batch)


def seal(log: CaptureLog) -> None:
    log.commit(log.new_batch(), log.seal())


def test_offsets_are_dense_over_commits_seals_and_restarts(tmp_path: Path) -> None:
    home = Home(tmp_path)
    records = [record(n) for n in range(25)]
    with CaptureLog(home) as log:
        fill(log, records[:10])
        fill(log, records[10:12])
        seal(log)
        fill(log, records[12:20])
    with CaptureLog(home) as log:
        assert log.next_offsets == {"line1": 20}
        assert log.hot_rows == 8
        fill(log, records[20:])
        seal(log)
        assert log.hot_rows == 0
    assert sealed_records(home, "line1") == records


def test_streams_have_offsets_and_folders_of_their_own(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with CaptureLog(home) as log:
        fill(log, [record(0)], "line 1")
        fill(log, [record(1), record(2)], "line2")
        seal(log)
    assert sealed_records(home, "line 1") == [record(0)]
    assert sealed_records(home, "line2") == [record(1), record(2)]
    assert {path.name for path in home.capture.iterdir() if path.is_dir()} == {"line%201", "line2"}


def test_a_segment_lies_in_the_hour_of_its_first_record(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with CaptureLog(home) as log:
        fill(log, [record(25 * HOUR_US - 1), record(25 * HOUR_US)])
        seal(log)
    expected = "line1/ingest_date=1970-01-02/ingest_hour=00/0000000000000000-0000000000000002"
    assert (home.capture / f"{expected}.parquet").exists()


def test_a_seal_is_cut_at_the_row_limit(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with CaptureLog(home, segment_rows=10) as log:
        for n in range(6):
            fill(log, [record(4 * n + i) for i in range(4)])
        assert [(s.lo, s.hi) for s in log.seal()] == [(0, 8), (8, 16), (16, 24)]
        seal(log)
    assert len(sealed_records(home, "line1")) == 24


def test_commits_go_on_between_a_seal_and_its_listing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with CaptureLog(home) as log:
        fill(log, [record(0)])
        segments = log.seal()
        fill(log, [record(1)])
        log.commit(log.new_batch(), segments)
        assert log.hot_rows == 1
        seal(log)
    assert sealed_records(home, "line1") == [record(0), record(1)]


records = st.builds(
    Record,
    source=st.text(max_size=5),
    topic=st.text(max_size=20),
    payload=st.binary(max_size=50),
    received_ts=st.integers(0, 2**52),
    source_ts=st.none() | st.integers(-(2**52), 2**52),
    server_ts=st.none() | st.integers(-(2**52), 2**52),
    quality=st.integers(0, 2**32 - 1),
    retain=st.booleans(),
    dup=st.booleans(),
)


@BROAD
@given(batches=st.lists(st.lists(records, max_size=12), min_size=1, max_size=4))
def test_every_record_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Record]]
) -> None:
    home = Home(tmp_path_factory.mktemp("log"))
    with CaptureLog(home) as log:
        for batch in batches:
            fill(log, batch)
        seal(log)
    assert sealed_records(home, "line1") == [r for batch in batches for r in batch]


def crash_at(step: str, after: int = 0) -> Callable[[str], None]:
    left = after

    def steps(name: str) -> None:
        nonlocal left
        if name == step:
            if left == 0:
                raise Crash(step)
            left -= 1

    return steps


def capture_until_crash(log: CaptureLog, sent: list[Record]) -> int:
    """Commits ten at a time and seals; returns how many were acknowledged before the crash."""
    acknowledged = 0
    try:
        for at in range(0, len(sent), 10):
            fill(log, sent[at : at + 10])
            acknowledged = at + 10
            seal(log)
    except Crash:
        return acknowledged
    raise AssertionError("the step was never reached")


def abandon(log: CaptureLog) -> None:
    """What a kill does: files are closed, nothing else happens."""
    log._db.close()
    log._lock.release()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [0, 1])
def test_a_crash_between_any_two_steps_loses_and_doubles_nothing(
    tmp_path: Path, step: str, after: int
) -> None:
    home = Home(tmp_path)
    sent = [record(n) for n in range(30)]
    log = CaptureLog(home, steps=crash_at(step, after))
    acknowledged = capture_until_crash(log, sent)
    abandon(log)
    with CaptureLog(home) as log:
        kept = log.next_offsets.get("line1", 0)
        assert acknowledged <= kept <= acknowledged + 10
        assert unlisted_files(home) == set()
        fill(log, sent[kept:])
        seal(log)
    assert sealed_records(home, "line1") == sent


def test_a_second_writer_is_refused_by_name(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with CaptureLog(home), pytest.raises(StorageError, match=f"process {os.getpid()} is already"):
        CaptureLog(home)
    with CaptureLog(home):
        pass


def test_another_version_of_the_manifest_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with CaptureLog(home) as log:
        log._db.execute("PRAGMA user_version = 9")
    with pytest.raises(StorageError, match="version 9, this buffer writes 2"):
        CaptureLog(home)


def test_a_missing_segment_is_reported_and_capture_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(tmp_path)
    with CaptureLog(home) as log:
        fill(log, [record(0)])
        seal(log)
    (segment,) = home.capture.glob("*/**/*.parquet")
    segment.unlink()
    with CaptureLog(home) as log:
        assert log.missing_files == [str(segment.relative_to(home.capture))]
        assert "listed in the manifest but missing" in caplog.text
        fill(log, [record(1)])
        assert log.next_offsets == {"line1": 2}


def test_a_failed_commit_changes_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with CaptureLog(home) as log:
        fill(log, [record(n) for n in range(100)])
        (pages,) = log._db.execute("PRAGMA page_count").fetchone()
        log._db.execute(f"PRAGMA max_page_count = {pages}")
        batch = log.new_batch()
        batch.add("mqtt", [Delivery("line1", Record("mqtt", "t", bytes(50_000), 7), 0)])
        for _ in range(3):
            with pytest.raises(StorageError, match="nothing is acknowledged"):
                log.commit(batch)
        assert log.next_offsets == {"line1": 100}
        log._db.execute("PRAGMA max_page_count = 1000000")
        log.commit(batch)
        assert log.next_offsets == {"line1": 101}
        seal(log)
    assert len(sealed_records(home, "line1")) == 101


def test_a_seal_that_can_not_write_leaves_the_records_hot(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with CaptureLog(home) as log:
        fill(log, [record(0)])
        blocker = home.capture / "line1"
        blocker.write_text("in the way")
        with pytest.raises(StorageError, match="can not seal"):
            log.seal()
        blocker.unlink()
        seal(log)
    assert sealed_records(home, "line1") == [record(0)]
