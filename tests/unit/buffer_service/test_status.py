import json
import subprocess
import sys
from pathlib import Path

from buffer_service.status import DEVICES_LIMIT, Durations, LineStatistics, write_status
from iiot_platform.core.capture_log import Record


def record(n: int) -> Record:
    return Record("mqtt", f"line1/m/{n}", b"", n * 1_000)


def test_the_longest_silent_devices_are_forgotten() -> None:
    line = LineStatistics(captured=5)
    line.took([record(n) for n in range(DEVICES_LIMIT)])
    line.took([record(0), record(DEVICES_LIMIT)])
    assert line.captured == DEVICES_LIMIT + 7
    assert len(line.devices) == DEVICES_LIMIT
    assert "line1/m/1" not in line.devices
    assert list(line.devices)[-2:] == ["line1/m/0", f"line1/m/{DEVICES_LIMIT}"]
    assert line.last_received_ms == DEVICES_LIMIT


def test_durations_keep_count_mean_and_extremes() -> None:
    durations = Durations()
    assert durations.report()["mean_s"] == 0
    for seconds in (1.0, 3.0, 2.0):
        durations.add(seconds)
    assert durations.report() == {"count": 3, "mean_s": 2.0, "last_s": 2.0, "longest_s": 3.0}


def test_the_status_file_is_replaced_whole(tmp_path: Path) -> None:
    assert write_status(tmp_path, {"a": 1})
    assert write_status(tmp_path, {"a": 2})
    assert json.loads((tmp_path / "status.json").read_text()) == {"a": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    assert not write_status(tmp_path / "missing", {"a": 3})


def test_a_seal_does_not_import_pandas() -> None:
    code = "import sys; from buffer_service.log import seal; seal.warm(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert "pyarrow" in loaded.stdout.split()
    assert "pandas" not in loaded.stdout.split()
