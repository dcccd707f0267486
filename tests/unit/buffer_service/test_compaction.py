"""Compaction: one file for many, the same records and chain, and nothing lost on the way."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from buffer_service.delivery import Delivery
from buffer_service.log.capture import CaptureLog
from buffer_service.log.manifest import Change
from buffer_service.log.segment_file import no_step
from buffer_service.log.upkeep import Upkeep, run_all
from iiot_platform.config.plant import BufferSettings
from iiot_platform.core.capture_log import Record
from iiot_platform.core.paths import Home
from iiot_platform.engine.log_reader import LogReader
from iiot_platform.engine.log_verify import SealedLog
from tests.servers.capture_reader import sealed_records, unlisted_files

HOUR_US = 3_600_000_000
LINE = "line1"
GRACE_S = 100.0
STEPS = [
    "compact.written",
    "compact.synced",
    "compact.renamed",
    "compact.folder_synced",
    "commit.written",
    "commit.durable",
    "unlink.one",
    "unlink.all",
]


class Crash(BaseException):
    pass


class Log:
    """A log with its upkeep, on a clock that is set by hand."""

    def __init__(
        self, home: Home, steps: Callable[[str], None] = no_step, **settings: object
    ) -> None:
        self.home = home
        self.now_us = 2 * HOUR_US
        given = {"compact_after_s": 3_600.0, "unlink_grace_s": GRACE_S, **settings}
        self.capture = CaptureLog(home, steps=steps, clock=lambda: self.now_us)
        self.upkeep = Upkeep(
            home,
            BufferSettings.model_validate(given),
            steps=steps,
            clock=lambda: self.now_us,
        )

    def tend(self) -> int:
        return run_all(self.upkeep, self.list)

    def list(self, changes: Sequence[Change]) -> None:
        self.capture.commit(self.capture.new_batch(), changes=changes)

    def close(self) -> None:
        self.capture.close()


def records(count: int, *, hour: int = 0) -> list[Record]:
    step = HOUR_US // 40
    return [
        Record("mqtt", f"{LINE}/m/{n % 3}", b'{"n":%d}' % n, hour * HOUR_US + n * step)
        for n in range(count)
    ]


def write(capture: CaptureLog, found: Sequence[Record], *, each: int = 3) -> None:
    """Seals records a few at a time."""
    for at in range(0, len(found), each):
        batch = capture.new_batch()
        batch.add("mqtt", [Delivery(LINE, r, n) for n, r in enumerate(found[at : at + each])])
        capture.commit(batch)
        capture.commit(capture.new_batch(), capture.seal())


def abandon(log: Log) -> None:
    log.capture._db.close()
    log.capture._lock.release()


def test_a_closed_hour_becomes_one_file_with_the_same_records_and_chain(home: Home) -> None:
    log = Log(home)
    sent = [*records(40), *records(10, hour=1)]
    write(log.capture, sent)
    before = SealedLog(home).verify(LINE)
    assert log.tend() == 1
    segments = SealedLog(home).segments(LINE)
    # the hour's last segment reaches into the next one
    assert (segments[0].lo, segments[0].hi) == (0, 39)
    after = SealedLog(home).verify(LINE)
    assert (after.damage, after.chain_hash, after.records) == (None, before.chain_hash, 50)
    assert after.segments < before.segments
    assert sealed_records(home, LINE) == sent
    assert log.tend() == 0
    log.close()


def test_a_reader_that_had_the_list_finds_its_files_until_the_grace_is_over(home: Home) -> None:
    log = Log(home)
    write(log.capture, records(30))
    listed = LogReader(home).segments(LINE, 0, 30)
    log.tend()
    assert all(segment.path.exists() for segment in listed)
    log.now_us += int(GRACE_S * 1e6) - 1
    assert log.tend() == 0
    log.now_us += 2
    assert log.tend() == 1
    assert not any(segment.path.exists() for segment in listed)
    assert unlisted_files(home) == set()
    assert len(sealed_records(home, LINE)) == 30
    log.close()


def test_the_grace_goes_on_after_a_restart(home: Home) -> None:
    log = Log(home)
    write(log.capture, records(30))
    log.tend()
    log.close()
    again = Log(home)
    assert len(unlisted_files(home)) == 10
    again.now_us += int(GRACE_S * 1e6) + 1
    again.tend()
    assert unlisted_files(home) == set()
    again.close()


@pytest.mark.parametrize("rows", [1, 7, 12, 1_000])
def test_a_file_holds_no_more_rows_than_it_may(home: Home, rows: int) -> None:
    log = Log(home, compact_rows=rows)
    write(log.capture, records(40))
    log.tend()
    assert all(s.hi - s.lo <= max(rows, 3) for s in SealedLog(home).segments(LINE))
    assert len(sealed_records(home, LINE)) == 40
    log.close()


def test_an_hour_is_left_alone_until_its_time(home: Home) -> None:
    log = Log(home)
    log.now_us = 2 * HOUR_US - 1
    write(log.capture, records(30))
    assert log.tend() == 0
    log.now_us += 1
    assert log.tend() == 1
    log.close()


def test_row_groups_are_read_one_by_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("buffer_service.log.compact.ROW_GROUP_ROWS", 4)
    log = Log(home)
    sent = records(30)
    write(log.capture, sent)
    log.tend()
    reader = LogReader(home)
    assert len(reader.segments(LINE, 0, 30)) == 1
    for lo, hi in ((0, 30), (0, 1), (5, 6), (3, 9), (29, 30)):
        found = reader.read(LINE, [(lo, hi)])
        assert found.column("payload").to_pylist() == [r.payload for r in sent[lo:hi]]
    ranges = [(1, 2), (2, 5), (9, 11), (28, 30)]
    found = reader.read(LINE, ranges).column("offset").to_pylist()
    assert found == [n for lo, hi in ranges for n in range(lo, hi)]
    log.close()


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_loses_and_doubles_nothing(home: Home, step: str) -> None:
    armed = False

    def steps(name: str) -> None:
        if armed and name == step:
            raise Crash(name)

    log = Log(home, steps)
    sent = records(40)
    write(log.capture, sent)
    armed = True
    with pytest.raises(Crash):  # noqa: PT012 - which of them dies is the parameter
        log.tend()
        log.now_us += int(GRACE_S * 1e6) + 1
        log.tend()
    abandon(log)
    again = Log(home)
    assert sealed_records(home, LINE) == sent
    again.tend()
    again.now_us += 2 * int(GRACE_S * 1e6)
    again.tend()
    assert sealed_records(home, LINE) == sent
    assert len(SealedLog(home).segments(LINE)) == 1
    assert unlisted_files(home) == set()
    again.close()


def test_a_damaged_segment_is_set_aside_and_the_others_are_compacted(home: Home) -> None:
    log = Log(home)
    sent = records(30)
    write(log.capture, sent)
    bad = SealedLog(home).segments(LINE)[4]
    path = home.capture / bad.path
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(bytes(body))
    assert log.tend() == 3
    assert [(s.lo, s.hi) for s in SealedLog(home).segments(LINE)] == [(0, 12), (15, 30)]
    assert list((home.capture / "damaged.files").glob(f"**/{path.name}")) != []
    reader = LogReader(home)
    assert reader.gone(LINE) == ((12, 15),)
    assert reader.present(LINE, [(0, 30)]) == [(0, 12), (15, 30)]
    verdict = SealedLog(home).verify(LINE)
    assert verdict.damage is None
    assert verdict.lost == ((12, 15),)
    write(log.capture, records(3, hour=5))
    assert SealedLog(home).verify(LINE).damage is None
    log.close()


def test_the_thread_hands_over_and_ends(home: Home) -> None:
    log = Log(home)
    write(log.capture, records(30))
    log.upkeep.start()
    while not log.upkeep.pending:
        assert log.upkeep._thread.is_alive()
        log.upkeep._listed.wait(0.01)
    log.list(log.upkeep.pending)
    log.upkeep.listed()
    log.upkeep.stop()
    assert log.upkeep.report.segments_compacted == 10
    assert not log.upkeep._thread.is_alive()
    log.close()


def test_the_result_is_labelled_for_a_rebuild(home: Home, tmp_path: Path) -> None:
    log = Log(home)
    write(log.capture, records(30))
    log.tend()
    log.close()
    chain = SealedLog(home).verify(LINE).chain_hash
    for path in home.capture.glob("manifest.sqlite*"):
        path.rename(tmp_path / path.name)
    again = Log(home)
    assert "30 records in 1 segments" in again.capture.rebuilt
    assert SealedLog(home).verify(LINE).chain_hash == chain
    again.close()
