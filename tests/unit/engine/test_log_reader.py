"""The log as the engine reads it: whole batches of dense offsets, or an error that says why not."""

import sqlite3
from contextlib import closing

import pytest

from iiot_platform.core.capture_log import SEGMENT_SCHEMA
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home
from iiot_platform.engine.log_reader import LogReader, Segment, without
from tests.servers.capture_log import write_segments
from tests.servers.streams import BASE_MS, signal

RECORDS = [signal("t", BASE_MS + i, float(i)) for i in range(25)]


@pytest.fixture
def log(home: Home) -> LogReader:
    write_segments(home, "line1", RECORDS, rows=10)  # [0, 10), [10, 20), [20, 25)
    write_segments(home, "line'2", RECORDS[:3])
    return LogReader(home)


def change(home: Home, sql: str) -> None:
    with closing(sqlite3.connect(home.manifest)) as manifest, manifest:
        manifest.execute(sql)


def test_without_a_log_there_is_nothing_yet(home: Home) -> None:
    log = LogReader(home)
    assert (log.streams(), log.head("line1"), log.batch_end("line1", 0, 5)) == ([], 0, 0)


def test_streams_and_their_heads(log: LogReader) -> None:
    assert sorted(log.streams()) == ["line'2", "line1"]
    assert (log.head("line1"), log.head("line'2"), log.head("line3")) == (25, 3, 0)


@pytest.mark.parametrize(
    ("lo", "cap", "hi"),
    [(0, 10, 10), (0, 19, 10), (0, 20, 20), (0, 100, 25), (20, 10, 25), (25, 10, 25), (0, 3, 10)],
)
def test_a_batch_ends_at_a_segment_and_is_never_empty(
    log: LogReader, lo: int, cap: int, hi: int
) -> None:
    assert log.batch_end("line1", lo, cap) == hi


@pytest.mark.parametrize(
    "ranges",
    [[(0, 25)], [(3, 4)], [(8, 22)], [(10, 20)], [(0, 2), (9, 11), (24, 25)], [(5, 5)], []],
)
def test_ranges_are_read_to_the_offset(log: LogReader, ranges: list[tuple[int, int]]) -> None:
    found = log.read("line1", ranges)
    assert found.schema == SEGMENT_SCHEMA
    expected = [offset for lo, hi in ranges for offset in range(lo, hi)]
    assert found.column("offset").to_pylist() == expected
    assert found.column("payload").to_pylist() == [RECORDS[offset].payload for offset in expected]


def test_an_odd_name_of_a_stream_is_no_trouble(log: LogReader) -> None:
    assert len(log.read("line'2", [(0, 3)])) == 3


def test_offsets_that_are_not_there_are_an_error(log: LogReader, home: Home) -> None:
    with pytest.raises(StorageError, match="25 of the 26 records"):
        log.read("line1", [(0, 26)])
    with pytest.raises(StorageError, match=r"no segment for offsets \[30, 40\)"):
        log.read("line1", [(30, 40)])
    change(home, "DELETE FROM segments WHERE lo = 10")
    with pytest.raises(StorageError, match="15 of the 25"):
        log.read("line1", [(0, 25)])


def test_a_lost_or_damaged_file_is_an_error(log: LogReader, home: Home) -> None:
    (segment,) = log.segments("line1", 10, 20)
    segment.path.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(StorageError, match="line1"):
        log.read("line1", [(0, 25)])
    segment.path.unlink()
    with pytest.raises(StorageError, match="can not be read"):
        log.read("line1", [(0, 25)])
    assert len(log.read("line1", [(0, 10)])) == 10
    del home


def test_a_newer_manifest_asks_for_a_newer_platform(log: LogReader, home: Home) -> None:
    change(home, "PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="upgrade the platform"):
        log.head("line1")


def test_a_damaged_manifest_is_an_error_of_storage(log: LogReader, home: Home) -> None:
    for file in home.capture.glob("manifest.sqlite-*"):
        file.unlink()
    home.manifest.write_bytes(b"no database at all" * 400)
    with pytest.raises(StorageError, match="can not be read"):
        log.head("line1")


def test_a_file_that_was_compacted_while_it_was_read_is_no_trouble(
    log: LogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, stale = log.segments, [True]

    def segments(stream: str, lo: int, hi: int) -> list[Segment]:
        found = read(stream, lo, hi)
        if stale.pop() if stale else False:
            return [one._replace(path=one.path.with_name("gone.parquet")) for one in found]
        return found

    monkeypatch.setattr(log, "segments", segments)
    stream = log.streams()[0]
    assert len(log.read(stream, [(0, 1)])) == 1


def test_only_what_is_known_to_be_gone_is_left_out(log: LogReader) -> None:
    ranges, gone = [(0, 10), (12, 20), (25, 26)], [(0, 3), (5, 6), (9, 15), (20, 30)]
    assert without(ranges, gone) == [(3, 5), (6, 9), (15, 20)]
    assert without(ranges, []) == ranges
    assert log.gone(log.streams()[0]) == ()
