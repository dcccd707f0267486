import json
import time
from pathlib import Path
from typing import Any

import pytest

from iiot_platform.cli.app import main
from iiot_platform.core.capture_log import Record
from iiot_platform.core.paths import Home
from tests.servers.capture_log import write_segments


def reading(ts_ms: int) -> Record:
    payload = f'{{"SensorName":"temperature","SensorValue":20.5,"TimeStamp":{ts_ms}}}'
    return Record("mqtt", "line1/press/temperature", payload.encode(), ts_ms * 1_000)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home with a log of one line, and a plant file of two."""
    home = Home(tmp_path / "home")
    now = time.time_ns() // 1_000_000
    write_segments(home, "line1", [reading(now - 30_000 + 1_000 * i) for i in range(30)])
    plant = tmp_path / "plant.yaml"
    plant.write_text("lines: [line1, line2]", encoding="utf-8")
    return {"IIOT_HOME": str(home.root), "IIOT_PLANT": str(plant)}


def run(environ: dict[str, str], *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments, environ)
    return int(caught.value.code or 0)


def answer(environ: dict[str, str], capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(environ, *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_batch_computes_what_waits(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = answer(environ, capsys, "status")
    done = answer(environ, capsys, "batch")
    after = answer(environ, capsys, "status")

    assert [line["lag_rows"] for line in before["lines"]] == [30, 0]
    assert [line["records"] for line in done["lines"]] == [30, 0]
    assert [line["lag_rows"] for line in after["lines"]] == [0, 0]
    assert answer(environ, capsys, "batch", "line1")["lines"][0]["batches"] == 0


def test_a_batch_of_an_unknown_line_is_refused(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(environ, "batch", "line3") == 2
    assert "line3" in capsys.readouterr().err


def test_status_is_readable(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    run(environ, "batch")
    capsys.readouterr()

    assert run(environ, "status") == 0
    shown = capsys.readouterr().out
    assert "never ran here" in shown
    assert "line2" in shown
    assert "1 batches" in shown


def test_tables_are_listed_and_shown(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(environ, "batch")
    capsys.readouterr()

    listed = {row["table"]: row["rows"] for row in answer(environ, capsys, "tables")}
    rows = answer(environ, capsys, "tables", "--table", "signals", "--last", "3")

    assert listed["signals"] == 30
    assert len(rows) == 3
    assert rows[-1]["sensor_name"] == "temperature"
    assert rows[-1]["ts"].endswith("+00:00")
    (hour,) = {row["ts"][:13].replace("T", "-") + ":00" for row in rows}
    assert answer(environ, capsys, "tables", "--table", "signals", "--hour", hour)[-3:] == rows
    assert (
        answer(environ, capsys, "tables", "--table", "signals", "--hour", "2020-01-01-00:00") == []
    )
    assert run(environ, "tables", "--table", "signals", "--hour", "now") == 2
    capsys.readouterr()
    for name in listed:
        assert run(environ, "tables", "--table", name) == 0
        assert "ts" in capsys.readouterr().out
        answer(environ, capsys, "tables", "--table", name)


def test_tables_without_results_say_what_to_do(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(environ, "tables") == 1
    assert "holds no ledger" in capsys.readouterr().err


def test_a_replay_needs_to_know_where_it_belongs(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(environ, "simulate", "--replay", "recording.csv") == 2
    assert "--line and --machine" in capsys.readouterr().err
