import json
import time
from pathlib import Path

import pytest

from iiot_platform.cli.app import main
from iiot_platform.cli.report import PeriodError, period_s
from iiot_platform.core.capture_log import Record
from iiot_platform.core.paths import Home
from tests.servers.capture_log import write_segments


def reading(ts_ms: int) -> Record:
    payload = f'{{"SensorName":"temperature","SensorValue":20.5,"TimeStamp":{ts_ms}}}'
    return Record("mqtt", "line1/press/temperature", payload.encode(), ts_ms * 1_000)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home whose log was computed."""
    home = Home(tmp_path / "home")
    now = time.time_ns() // 1_000_000
    write_segments(home, "line1", [reading(now - 30_000 + 1_000 * i) for i in range(30)])
    plant = tmp_path / "plant.yaml"
    plant.write_text("lines: [line1]", encoding="utf-8")
    found = {"IIOT_HOME": str(home.root), "IIOT_PLANT": str(plant)}
    assert run(found, "batch") == 0
    return found


def run(environ: dict[str, str], *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments, environ)
    return int(caught.value.code or 0)


def test_it_writes_one_file(environ: dict[str, str], tmp_path: Path) -> None:
    output = tmp_path / "plant.html"
    assert (
        run(environ, "report", "--line", "line1", "--last", "15min", "--output", str(output)) == 0
    )
    page = output.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "0 anomalies" in page
    assert "in 30 rows" in page


def test_it_prints_its_numbers(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(environ, "report", "--json") == 0
    (line,) = json.loads(capsys.readouterr().out)["lines"]
    assert line["overview"]["readings"] == 30
    assert [(s["series"], s["rows"]) for s in line["series"]] == [("temperature", 30)]


def test_what_is_wrong_is_told(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(environ, "report", "--last", "an hour") == 2
    assert run(environ, "report", "--line", "line2") == 1
    assert run(environ, "report", "--output", str(tmp_path)) == 1
    told = capsys.readouterr().err
    assert "15min" in told
    assert "did you mean 'line1'" in told
    assert "can not write" in told


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("15 min", 900), ("1.5h", 5_400)])
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert period_s(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "0s", "-1h", "1w"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(PeriodError):
        period_s(text)
