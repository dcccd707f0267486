"""What is damaged is named and set aside, and the rest goes on."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from buffer_service.delivery import Delivery
from buffer_service.log.capture import CaptureLog
from buffer_service.log.rebuild import rebuild
from iiot_platform.core.capture_log import MANIFEST_VERSION, Record
from iiot_platform.core.consumption import Consumption, write_consumption
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home
from iiot_platform.engine.log_reader import LogReader
from iiot_platform.engine.log_verify import SealedLog
from iiot_platform.engine.payloads import Gap, gap_in
from tests.servers.capture_reader import sealed_records
from tests.servers.fault_table import Outcome, Tell

LINE = "line1"
OF_VERSION_1 = Path(__file__).parents[2] / "data" / "manifest_v1"


def records(lo: int, hi: int) -> list[Record]:
    return [
        Record("mqtt", f"{LINE}/m/{n % 3}", b'{"n":%d}' % n, n * 1_000_000) for n in range(lo, hi)
    ]


def fill(log: CaptureLog, found: list[Record], stream: str = LINE) -> None:
    batch = log.new_batch()
    batch.add("mqtt", [Delivery(stream, r, n) for n, r in enumerate(found)])
    log.commit(batch)


def seal(log: CaptureLog) -> None:
    log.commit(log.new_batch(), log.seal())


def written(home: Home, *, hot: int = 0, stream: str = LINE) -> None:
    """Three segments of five records, and some that are hot."""
    with CaptureLog(home) as log:
        for lo in (0, 5, 10):
            fill(log, records(lo, lo + 5), stream)
            seal(log)
        if hot:
            fill(log, records(15, 15 + hot), stream)


def version_1(home: Home) -> None:
    shutil.copytree(OF_VERSION_1, home.root)


@pytest.mark.faults
def test_a_manifest_of_version_1_is_upgraded_in_place(home: Home, told: Tell) -> None:
    version_1(home)
    assert LogReader(home).gone(LINE) == ()
    assert SealedLog(home).verify(LINE).records == 10
    with CaptureLog(home) as log:
        assert log.next_offsets == {LINE: 12, "line 2": 3}
        assert not log.rebuilt
        seal(log)
        (version,) = log._db.execute("PRAGMA user_version").fetchone()
        assert version == MANIFEST_VERSION
    stored = sealed_records(home, LINE)
    told(Outcome.of("manifest of version 1", 1, records(0, 12), stored))
    assert stored == records(0, 12)
    assert SealedLog(home).verify("line 2").damage is None
    with CaptureLog(home) as log:
        assert log.next_offsets[LINE] == 12


def test_segments_without_labels_are_listed_anew(home: Home) -> None:
    version_1(home)
    chains = {line: SealedLog(home).verify(line).chain_hash for line in (LINE, "line 2")}
    home.manifest.unlink()
    with CaptureLog(home) as log:
        assert "13 records in 3 segments" in log.rebuilt
        assert log.next_offsets == {LINE: 10, "line 2": 3}
    for line, chain in chains.items():
        assert SealedLog(home).verify(line).chain_hash == chain


def test_a_manifest_that_is_no_database_is_made_anew(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    written(home)
    chain = SealedLog(home).verify(LINE).chain_hash
    home.manifest.write_bytes(b"not a database" * 100)
    with CaptureLog(home) as log:
        assert "15 records in 3 segments" in log.rebuilt
        fill(log, records(15, 18))
        seal(log)
    assert "manifest.sqlite is damaged" in caplog.text
    assert sealed_records(home, LINE) == records(0, 18)
    assert list((home.capture / "damaged.files").glob("manifest-*/manifest.sqlite")) != []
    assert SealedLog(home).segments(LINE)[2].chain_hash == chain


def test_hot_records_are_saved_from_a_manifest_that_is_still_readable(home: Home) -> None:
    written(home, hot=3)
    assert rebuild(home).hot == 3
    with CaptureLog(home) as log:
        assert log.next_offsets == {LINE: 18}
        seal(log)
    assert sealed_records(home, LINE) == records(0, 18)


def test_an_offset_that_was_computed_never_names_another_record(home: Home) -> None:
    written(home)
    write_consumption(home, {LINE: Consumption(15, 0)})
    newest = home.capture / SealedLog(home).segments(LINE)[-1].path
    newest.unlink()
    home.manifest.unlink()
    with CaptureLog(home) as log:
        assert log.next_offsets == {LINE: 15}
        assert "offsets [10, 15) of 'line1' are in no file" in log.rebuilt
        fill(log, records(15, 18))
        seal(log)
    assert LogReader(home).gone(LINE) == ((10, 15),)
    verdict = SealedLog(home).verify(LINE)
    assert (verdict.damage, verdict.lost, verdict.records) == (None, ((10, 15),), 13)


def test_a_segment_that_can_not_be_read_is_set_aside_by_a_rebuild(home: Home) -> None:
    written(home)
    bad = home.capture / SealedLog(home).segments(LINE)[1].path
    bad.write_bytes(b"no parquet")
    home.manifest.unlink()
    with CaptureLog(home) as log:
        assert "it is no segment" in log.rebuilt
        assert log.next_offsets == {LINE: 15}
    assert not bad.exists()
    verdict = SealedLog(home).verify(LINE)
    assert (verdict.damage, verdict.lost) == (None, ((5, 10),))


def test_a_segment_that_was_cut_is_set_aside_at_the_start(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    written(home)
    bad = home.capture / SealedLog(home).segments(LINE)[-1].path
    bad.write_bytes(bad.read_bytes()[:-7])
    with CaptureLog(home) as log:
        assert log.next_offsets == {LINE: 16}
        assert len(log.damaged) == 1
        fill(log, records(16, 17))
        seal(log)
    assert "is damaged: it has" in caplog.text
    assert LogReader(home).gone(LINE) == ((10, 15),)
    gap = LogReader(home).read(LINE, [(15, 16)]).to_pylist()[0]
    assert gap["topic"] == "$gap/capture-log"
    assert gap_in(gap["payload"]) == Gap(10_000, 14_001, "offsets [10, 15) were damaged")
    assert SealedLog(home).verify(LINE).damage is None
    with CaptureLog(home) as log:
        assert log.damaged == []
        assert log.next_offsets == {LINE: 17}


def test_a_stream_with_a_long_name_is_known_by_its_label(home: Home) -> None:
    name = "line " * 40
    written(home, stream=name)
    home.manifest.unlink()
    with CaptureLog(home) as log:
        assert log.next_offsets == {name: 15}


def test_a_manifest_older_than_its_files_is_refused_with_the_way_out(home: Home) -> None:
    written(home)
    with closing(sqlite3.connect(home.manifest)) as manifest, manifest:
        manifest.execute("DELETE FROM segments WHERE lo = 10")
    with pytest.raises(StorageError, match="iiot log rebuild"):
        CaptureLog(home)
    rebuild(home)
    with CaptureLog(home) as log:
        assert log.next_offsets == {LINE: 15}


def test_a_lock_is_no_damage(home: Home) -> None:
    written(home)
    with closing(sqlite3.connect(home.manifest, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with CaptureLog(home) as log:
            assert not log.rebuilt
            with pytest.raises(StorageError, match="locked"):
                fill(log, records(15, 16))
