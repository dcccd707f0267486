import json
import re
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance

from iiot_platform.cli.app import main
from iiot_platform.config.plant_file import load_plant
from iiot_platform.core.clock import MS_PER_HOUR, from_ms, hour_of, now_ms, partition_key
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.errors import CommitLostError
from iiot_platform.orchestration.instance import prepare_instance
from tests.servers.capture_log import write_segments
from tests.servers.streams import signal

LINE = "line1"
NOW = now_ms()
HOURS = [hour_of(NOW) - back for back in (4, 3, 2)]
SMALL = "timezone: Europe/Rome\nlines: [line1, other]\ndefaults: {signal: {window: 10}}\n"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    plant = tmp_path / "plant.yaml"
    plant.write_text(SMALL, encoding="utf-8")
    home = Home(tmp_path / "var")
    records = [
        signal("t", hour * MS_PER_HOUR + i * 60_000, 20.0 + i % 7)
        for hour in HOURS
        for i in range(40)
    ]
    write_segments(home, LINE, records)
    engine = Engine(home, load_plant(plant, {}))
    while engine.run_batch(LINE, run_id="live", row_cap=1_000):
        pass
    engine.close()
    return {"IIOT_HOME": str(home.root), "IIOT_PLANT": str(plant)}


def run(environ: dict[str, str], *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments, environ)
    return int(caught.value.code or 0)


def asked(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0
) -> Any:
    assert run(environ, *arguments, "--json") == code
    return json.loads(capsys.readouterr().out)


def at(hour: int) -> str:
    return f"{from_ms(hour * MS_PER_HOUR):%Y-%m-%dT%H:%MZ}"


def test_hours_of_a_span_are_computed_again(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    span = ("--from", at(HOURS[0]), "--to", at(HOURS[2]))
    found = asked(environ, capsys, "rerun", "--line", LINE, *span)
    (line,) = found["lines"]
    assert (line["hours"], line["equal"], line["differences"]) == (2, 2, [])
    assert run(environ, "rerun", "--all", "--from", at(HOURS[0])) == 0
    shown = capsys.readouterr().out
    assert "line1: 3 hours computed again, 3 as they were" in shown
    assert "other: 0 hours" in shown


def test_hours_under_older_settings_are_found_and_brought_up_to_date(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    plant = Path(environ["IIOT_PLANT"])
    plant.write_text(SMALL.replace("window: 10", "window: 10, threshold: 1.2"), encoding="utf-8")
    assert asked(environ, capsys, "status")["lines"][0]["outdated_hours"] == 3
    assert run(environ, "status") == 0
    assert "3 outdated hours" in capsys.readouterr().out
    (line, _) = asked(environ, capsys, "rerun", "--all", "--outdated")["lines"]
    assert line["hours"] == 3
    assert set(line["reasons"]) == {"settings changed"}
    assert line["differences"][0]["hour"] == partition_key(HOURS[0])
    assert asked(environ, capsys, "status")["lines"][0]["outdated_hours"] == 0
    kept = asked(environ, capsys, "rerun", "--all", "--from", at(HOURS[0]), "--settings", "keep")
    assert kept["lines"][0]["equal"] == 3


def test_a_state_that_has_changed_takes_the_hours_behind_it_along(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(Path(environ["IIOT_HOME"]))
    start = HOURS[0] * MS_PER_HOUR
    # in the hour's last minutes, so that the window that is handed on differs
    late = [signal("t", start + 3_500_000 + i, 25.0 + i, received=NOW) for i in range(3)]
    write_segments(home, LINE, late)
    engine = Engine(home, load_plant(Path(environ["IIOT_PLANT"]), {}))
    engine.run_batch(LINE, run_id="late")
    engine.close()
    end = ("--to", at(HOURS[1]))
    (line,) = asked(environ, capsys, "rerun", "--line", LINE, "--from", at(HOURS[0]), *end)["lines"]
    assert line["following_hours"] >= 1
    assert set(line["reasons"]) == {"late", "earlier hour changed"}
    rows = asked(environ, capsys, "late", "--line", LINE)
    assert [row["series"] for row in rows] == ["signal/press/t/"] * 3
    assert asked(environ, capsys, "late", "--from", at(HOURS[1])) == []
    assert run(environ, "late") == 0
    assert "press/t" in capsys.readouterr().out


def test_a_live_batch_that_wins_makes_it_begin_anew(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = Engine.rerun, [True, True]

    def recompute(engine: Engine, line: str, hour: int, **options: Any) -> object:
        if lost:
            lost.pop()
            raise CommitLostError(line, "the version", 1, 2)
        return real(engine, line, hour, **options)

    monkeypatch.setattr(Engine, "rerun", recompute)
    found = asked(environ, capsys, "rerun", "--line", LINE, "--from", at(HOURS[2]))
    assert found["lines"][0]["hours"] == 1


def test_dagster_is_told_where_there_is_one(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(Path(environ["IIOT_HOME"]))
    span = ("rerun", "--line", LINE, "--from", at(HOURS[2]))
    assert asked(environ, capsys, *span)["told_to_dagster"] is None
    prepare_instance(home)
    for _ in range(2):  # the check of one hour can be told again and again
        assert asked(environ, capsys, *span)["told_to_dagster"] == 1
    monkeypatch.setenv("DAGSTER_HOME", str(home.dagster))
    with DagsterInstance.from_config(str(home.dagster)) as instance:
        key = AssetKey([LINE, "signals"])
        record, _ = instance.fetch_materializations(key, limit=5).records
        assert record.partition_key == partition_key(HOURS[2])
        assert record.asset_materialization is not None
        assert record.asset_materialization.metadata["state"].value == "settled"


def test_a_defect_is_repaired_and_ends_with_1(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    tables = Home(Path(environ["IIOT_HOME"])).tables
    next((tables / LINE / "signals").rglob("*.parquet")).unlink()
    span = ("--all", "--from", at(HOURS[0]))
    assert asked(environ, capsys, "rerun", *span, code=1)["lines"][0]["reasons"] == {"defect": 1}
    assert asked(environ, capsys, "rerun", *span)["lines"][0]["reasons"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "-2h"], "give --line NAME"),
        (["--all"], "give --from"),
        (["--all", "--from", "whenever"], "'whenever' is no time"),
        (["--line", "lin1", "--from", "-2h"], "did you mean 'line1'"),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    environ: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert run(environ, "rerun", *arguments) == 2
    assert message in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_status_says_what_is_wrong_with_the_plant_file(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    plant = Path(environ["IIOT_PLANT"])
    home = Path(environ["IIOT_HOME"])
    (home / "plant.active.yaml").write_text(SMALL, encoding="utf-8")
    assert asked(environ, capsys, "status")["plant_file"] == "in force"
    plant.write_text(SMALL.replace("10", "11"), encoding="utf-8")
    assert "reload its code location" in asked(environ, capsys, "status")["plant_file"]
    plant.write_text("lines: [line1]\nwindow: 3\n", encoding="utf-8")
    found = asked(environ, capsys, "status")
    assert "plant.yaml:2: window: no such field" in found["plant_file"]
    assert found["lines"][0]["outdated_hours"] == 0
    assert run(environ, "status") == 0
    assert "broken, the last valid one stays in force" in capsys.readouterr().out
