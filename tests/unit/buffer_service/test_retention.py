"""Raw records go by age, by size or in need, and never one that is needed."""

import json
from pathlib import Path

import pytest

from buffer_service.disk import DiskGuard, Space
from buffer_service.log.capture import CaptureLog
from buffer_service.log.upkeep import Upkeep, run_all
from iiot_platform.config.plant import BufferSettings
from iiot_platform.core.consumption import Consumption, read_consumption, write_consumption
from iiot_platform.core.paths import Home
from iiot_platform.engine.log_reader import LogReader
from iiot_platform.engine.log_verify import SealedLog
from tests.servers.capture_reader import unlisted_files
from tests.unit.buffer_service.test_recovery import LINE, fill, records, seal

NOW_US = 1_000_000_000_000


def tend(log: CaptureLog, home: Home, wanted: int = 0, **settings: object) -> Upkeep:
    """Everything that is due, with compaction far away."""
    given = {"compact_after_s": 1e9, **settings}
    upkeep = Upkeep(
        home,
        BufferSettings.model_validate(given),
        bytes_wanted=lambda: wanted if len(SealedLog(home).segments(LINE)) > 4 else 0,
        clock=lambda: NOW_US,
    )
    run_all(upkeep, lambda changes: log.commit(log.new_batch(), changes=changes))
    return upkeep


@pytest.fixture
def log(home: Home) -> CaptureLog:
    """Six segments of five records, one a second."""
    log = CaptureLog(home, clock=lambda: NOW_US)
    for lo in range(0, 30, 5):
        fill(log, records(lo, lo + 5))
        seal(log)
    return log


def start(home: Home) -> int:
    gone = LogReader(home).gone(LINE)
    return gone[0][1] if gone else 0


AGE = {"keep_raw_s": NOW_US / 1e6 - 22}  # records of the first 22 s are too old


def test_old_records_go_where_they_are_consumed(log: CaptureLog, home: Home) -> None:
    write_consumption(home, {LINE: Consumption(30, 30)})
    chain = SealedLog(home).verify(LINE).chain_hash
    upkeep = tend(log, home, **AGE)
    assert start(home) == 20
    verdict = SealedLog(home).verify(LINE)
    assert (verdict.damage, verdict.start, verdict.records) == (None, 20, 10)
    assert verdict.chain_hash == chain
    # files stay for their readers
    assert len(unlisted_files(home)) == 4
    tend(log, home, unlink_grace_s=1e-6)
    log.close()
    with CaptureLog(home) as again:
        assert again.next_offsets == {LINE: 30}
    assert upkeep.report.retention == ""


@pytest.mark.parametrize(
    ("needed", "watermark", "kept_from"),
    [(30, 30, 20), (12, 30, 10), (0, 30, 0), (30, 9, 5), (99, 99, 0)],
)
def test_nothing_that_is_needed_goes(
    log: CaptureLog, home: Home, needed: int, watermark: int, kept_from: int
) -> None:
    """Not what is behind the watermark either, and nothing on the word of another log."""
    write_consumption(home, {LINE: Consumption(watermark, needed)})
    tend(log, home, **AGE)
    assert start(home) == kept_from
    log.close()


@pytest.mark.parametrize(
    "body", [None, "{", "[]", '{"version": 9}', '{"version": 1, "lines": {"line1": {}}}']
)
def test_without_word_from_the_platform_nothing_goes_and_it_says_so(
    log: CaptureLog, home: Home, body: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if body is not None:
        home.consumed.write_text(body)
    upkeep = tend(log, home, **AGE)
    assert start(home) == 0
    assert "consumed.json" in upkeep.report.retention
    assert "due to go and stay" in caplog.text
    log.close()


def test_without_a_limit_everything_stays(log: CaptureLog, home: Home) -> None:
    write_consumption(home, {LINE: Consumption(30, 30)})
    tend(log, home)
    assert start(home) == 0
    log.close()


def test_the_oldest_go_until_the_rest_fits(log: CaptureLog, home: Home) -> None:
    write_consumption(home, {LINE: Consumption(30, 30)})
    sizes = [segment.bytes for segment in SealedLog(home).segments(LINE)]
    tend(log, home, keep_raw_bytes=sum(sizes[3:]))
    assert start(home) == 15
    tend(log, home, keep_raw_bytes=1)
    assert start(home) == 25  # the newest stays
    log.close()


@pytest.mark.parametrize("allowed", [True, False])
def test_in_need_consumed_records_go_at_once_where_that_is_allowed(
    log: CaptureLog, home: Home, *, allowed: bool
) -> None:
    write_consumption(home, {LINE: Consumption(30, 20)})
    tend(log, home, wanted=1, disk_trim=allowed)
    assert start(home) == (10 if allowed else 0)
    assert unlisted_files(home) == set()
    assert len(list(home.capture.glob("*/**/*.parquet"))) == (4 if allowed else 6)
    log.close()


def test_the_contract_is_read_as_it_was_written(home: Home) -> None:
    home.root.mkdir()
    lines = {"a": Consumption(5, 3), "Línea 2": Consumption(0, 0)}
    write_consumption(home, lines)
    assert read_consumption(home) == (lines, "")
    assert json.loads(home.consumed.read_text())["version"] == 1
    assert [path.name for path in home.root.iterdir()] == ["consumed.json"]


class Disk:
    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self, _folder: Path) -> Space:
        return Space(1_000, self.free)


def look(guard: DiskGuard) -> tuple[str, int]:
    guard._look_at = 0.0
    assert guard.full == (guard.level == "full")
    return guard.level, guard.wanted


def test_the_disk_is_told_before_it_is_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(300)
    guard = DiskGuard(tmp_path, warn_free=0.2, stop_free=100, space=disk)
    seen = []
    for free in (300, 201, 199, 210, 219, 221, 150, 100, 99, 109, 111, 250):
        disk.free = free
        seen.append(look(guard))
    assert [level for level, _ in seen] == [
        *("ok", "ok", "low", "low", "low", "ok", "low", "low", "full", "full", "low", "ok")
    ]
    assert seen[8] == ("full", 12)
    assert caplog.text.count("is getting full") == 3
    assert caplog.text.count("is full but for the reserve") == 1
    assert guard.report() == {"level": "ok", "free": 250, "total": 1_000, "message": ""}
