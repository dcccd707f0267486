"""From machine A to home B: the log of some hours, computed there to the same bits."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from buffer_service.log import manifest
from buffer_service.log.capture import CaptureLog
from iiot_platform.cli.app import main
from iiot_platform.config.plant_file import load_plant
from iiot_platform.core.capture_log import content_hash
from iiot_platform.core.clock import hour_of, partition_key
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.log_verify import SealedLog
from tests.servers.capture_log import write_segments
from tests.servers.engines import LINE, contents, drain, settle
from tests.servers.streams import BASE_MS, HOUR_MS, disturb, line_records, signal

PLANT = """\
lines: [line1, other]
defaults:
  signal: {window: 20, rate_window: 10, relearn_after: 8}
  vibration: {window: 20, rate_window: 10}
  valve: {window: 8}
  electrical: {window: 8}
"""
FIRST = hour_of(BASE_MS)
LATER_MS = BASE_MS + 30 * HOUR_MS


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with four hours and all that goes wrong, settled."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "plant.yaml").write_text(PLANT)
    home = Home(folder / "var")
    records = disturb(line_records(11, 160, spread_ms=4 * HOUR_MS), 11)
    write_segments(home, LINE, records, rows=7)
    write_segments(home, "other", [signal("t", BASE_MS, 1.0, line="other")])
    engine = Engine(home, load_plant(folder / "plant.yaml", {}), clock=lambda: LATER_MS)
    drain(engine, [30])
    settle(engine)
    while hours := engine.unsettled_hours(LINE):
        engine.rerun(LINE, hours[0], run_id="settle", kind="settle")
    engine.close()
    return folder


def environ(folder: Path) -> dict[str, str]:
    return {"IIOT_HOME": str(folder / "var"), "IIOT_PLANT": str(folder / "plant.yaml")}


def run(folder: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments, environ(folder))
    return int(caught.value.code or 0)


def asked(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(folder, *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def moments(first: int, hours: int) -> list[str]:
    keys = [partition_key(FIRST + n) for n in (first, first + hours)]
    start, end = (f"{key[:10]}T{key[11:]}Z" for key in keys)
    return ["--from", start, "--to", end]


@pytest.fixture
def exported(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The second and third hour."""
    folder = tmp_path / "export"
    found = asked(original, capsys, "log", "export", "--line", LINE, *moments(1, 2), str(folder))
    assert found["hours"] == [partition_key(FIRST + 1), partition_key(FIRST + 2)]
    assert found["unsettled"] == []
    return folder


@pytest.fixture
def other(tmp_path: Path, exported: Path) -> Path:
    """A machine that has nothing but the plant file of the export."""
    folder = tmp_path / "other"
    folder.mkdir()
    shutil.copy(exported / "plant.yaml", folder)
    return folder


def whole(folder: Path) -> dict[tuple[str, int], str]:
    engine = Engine(Home(folder / "var"), load_plant(folder / "plant.yaml", {}))
    found = contents(engine)
    engine.close()
    return found


def test_hours_come_to_the_same_bits_on_another_machine(
    original: Path, exported: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = SealedLog(Home(original / "var")).verify(LINE).chain_hash
    (verdict,) = asked(other, capsys, "log", "verify", "--export", str(exported))
    assert verdict["sound"]
    assert run(other, "log", "import", str(exported)) == 0
    assert "iiot rerun --line" in capsys.readouterr().out
    assert run(other, "log", "verify", "--export", str(exported), "--computed") == 1
    assert run(other, "rerun", "--line", LINE, *moments(1, 2)) == 0
    assert run(other, "log", "verify", "--export", str(exported), "--computed") == 0
    assert "are the same" in capsys.readouterr().out
    there = {name: found for name, found in whole(original).items() if name[1] - FIRST in (1, 2)}
    here = whole(other)
    assert {name: here.get(name) for name in there} == there
    assert {hour for _, hour in here} == {FIRST + 1, FIRST + 2}
    (found,) = asked(other, capsys, "log", "verify")
    assert found["sound"]
    if found["head"] == SealedLog(Home(original / "var")).verify(LINE).head:
        assert found["chain_hash"] == chain
    # again is no trouble
    assert asked(other, capsys, "log", "import", str(exported))["was_there"]


def test_without_the_states_before_them_hours_come_to_something_else(
    exported: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What shows that the states are needed, and that the comparison sees it."""
    ledger = json.loads((exported / "ledger.json").read_text())
    body = json.dumps(ledger | {"states": []}).encode()
    (exported / "ledger.json").write_bytes(body)
    about = json.loads((exported / "export.json").read_text())
    about["files"]["ledger.json"] = content_hash(body)
    (exported / "export.json").write_text(json.dumps(about))
    assert run(other, "log", "import", str(exported)) == 0
    assert run(other, "rerun", "--line", LINE, *moments(1, 2)) == 0
    assert run(other, "log", "verify", "--export", str(exported), "--computed") == 1
    assert "table signal_anomalies" in capsys.readouterr().out


def test_capture_goes_on_behind_an_import(exported: Path, other: Path) -> None:
    assert run(other, "log", "import", str(exported)) == 0
    home = Home(other / "var")
    with CaptureLog(home) as log:
        (segment,) = SealedLog(home).segments(LINE)[-1:]
        assert log.next_offsets == {LINE: segment.hi}
    late = signal("temperature", BASE_MS + 9 * HOUR_MS, 20.0)
    write_segments(home, LINE, [late])
    engine = Engine(home, load_plant(other / "plant.yaml", {}))
    report = engine.run_batch(LINE, run_id="live")
    engine.close()
    assert report is not None
    assert (report.lo, [hour.hour for hour in report.hours]) == (segment.hi, [FIRST + 9])


def test_a_line_that_is_known_is_refused(
    original: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = whole(original)
    assert run(original, "log", "import", str(exported)) == 1
    assert "one line can have one log" in capsys.readouterr().err
    assert whole(original) == before


def test_a_running_buffer_is_not_disturbed(
    exported: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with CaptureLog(Home(other / "var")):
        assert run(other, "log", "import", str(exported)) == 1
    assert "already writing this capture log" in capsys.readouterr().err
    assert run(other, "log", "import", str(exported)) == 0


@pytest.mark.parametrize("name", ["ledger.json", "plant.yaml", "segments"])
def test_a_changed_export_is_refused(
    exported: Path, other: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = exported / name
    if path.is_dir():
        path = sorted(path.iterdir())[1]
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(bytes(body))
    assert run(other, "log", "import", str(exported)) == 1
    assert "copy it again" in capsys.readouterr().err
    assert not Home(other / "var").manifest.exists()


def test_hours_whose_raw_is_gone_are_not_exported(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    with CaptureLog(Home(copy / "var")) as log:
        segments = tuple(manifest.segments(log._db, "stream = ?", (LINE,)))[:3]
        log.commit(log.new_batch(), changes=[manifest.Trim(segments)])
    export = ["log", "export", "--line", LINE, str(tmp_path / "export")]
    assert run(copy, *export, *moments(0, 2)) == 1
    assert "deleted by retention" in capsys.readouterr().err


def test_an_interrupted_import_keeps_no_buffer_from_starting(
    exported: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    home = Home(other / "var")
    monkeypatch.setattr(CaptureLog, "adopt", die)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        main(["log", "import", str(exported)], environ(other))
    monkeypatch.undo()
    with CaptureLog(home) as log:
        assert log.next_offsets == {}
    assert run(other, "log", "import", str(exported)) == 0
    assert SealedLog(home).verify(LINE).damage is None


def test_the_log_is_listed(original: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hours = asked(original, capsys, "log", "ls", "--hours", "--line", LINE)
    segments = asked(original, capsys, "log", "ls", "--line", LINE)
    assert sum(hour["segments"] for hour in hours) == len(segments)
    assert not any(hour["compacted"] for hour in hours)
    assert run(original, "log", "ls", "--hours") == 0
    assert "ingest hours" in capsys.readouterr().out


def test_a_manifest_is_rebuilt_by_hand(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    home = Home(copy / "var")
    # what the buffer writes has another shape of name than what the tests write
    with CaptureLog(home):
        pass
    chain = SealedLog(home).verify("other").chain_hash
    found = asked(copy, capsys, "log", "rebuild")
    assert found["segments"] == len(list(home.capture.glob("*/**/*.parquet")))
    assert SealedLog(home).verify("other").chain_hash == chain
