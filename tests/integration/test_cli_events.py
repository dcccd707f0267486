"""What `iiot replay --promote` and `iiot quarantine retry` tell a Dagster instance on disk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance

from iiot_platform.cli.app import main
from iiot_platform.config.plant_file import load_plant
from iiot_platform.core.clock import MS_PER_HOUR, from_ms, hour_of, now_ms, partition_key
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.orchestration.instance import prepare_instance
from iiot_platform.orchestration.naming import ASSET_TABLES
from tests.servers.capture_log import write_segments
from tests.servers.streams import signal

LINE = "line1"
NOW = now_ms()
HOURS = [hour_of(NOW) - back for back in (5, 4, 3)]
PLANT = "lines: [{name: line1%s}]\ndefaults: {signal: {window: %d}}\n"
TOPIC = ", topic: 'hall/{line}/{machine}/{device}'"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Three hours that are computed; of the first one, some messages are set aside."""
    plant = tmp_path / "plant.yaml"
    plant.write_text(PLANT % ("", 10), encoding="utf-8")
    home = Home(tmp_path / "var")
    records = [
        signal("t", hour * MS_PER_HOUR + i * 80_000, 20.0 + i * i % 7)
        for hour in HOURS
        for i in range(40)
    ]
    for i in range(35, 40):
        records[i] = records[i]._replace(topic=f"hall/{LINE}/press/t")
    write_segments(home, LINE, records)
    engine = Engine(home, load_plant(plant, {}))
    while engine.run_batch(LINE, run_id="live", row_cap=40):
        pass
    engine.close()
    prepare_instance(home)
    return {"IIOT_HOME": str(home.root), "IIOT_PLANT": str(plant)}


@pytest.fixture
def instance(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    folder = str(Home(Path(environ["IIOT_HOME"])).dagster)
    monkeypatch.setenv("DAGSTER_HOME", folder)
    with DagsterInstance.from_config(folder) as found:
        yield found


def answer(environ: dict[str, str], capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        main((*arguments, "--json"), environ)
    assert not ended.value.code
    return json.loads(capsys.readouterr().out)


def dirty(environ: dict[str, str]) -> list[int]:
    engine = Engine(Home(Path(environ["IIOT_HOME"])), load_plant(Path(environ["IIOT_PLANT"]), {}))
    found = engine.dirty_hours(LINE)
    engine.close()
    return found


def check_told(instance: DagsterInstance, run_id: str) -> None:
    """Every hour was told once, with all of its tables, by this command."""
    keys = [partition_key(hour) for hour in HOURS]
    for table in ASSET_TABLES:
        found = instance.fetch_materializations(AssetKey([LINE, table]), limit=50).records
        assert sorted(str(record.partition_key) for record in found) == keys, table
        for record in found:
            assert record.asset_materialization is not None
            assert record.asset_materialization.metadata["computed_by"].value == run_id


@pytest.mark.parametrize("as_json", [True, False])
def test_a_promotion_tells_its_hours_and_those_that_follow(
    environ: dict[str, str],
    instance: DagsterInstance,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    as_json: bool,
) -> None:
    candidate = tmp_path / "candidate.yaml"
    candidate.write_text(PLANT % ("", 12), encoding="utf-8")
    start, end = (f"{from_ms(hour * MS_PER_HOUR):%Y-%m-%dT%H:%MZ}" for hour in HOURS[:2])
    asked = ("replay", "--plant", str(candidate), "--line", LINE, "--from", start, "--to", end)
    if as_json:
        promoted = answer(environ, capsys, *asked, "--promote")["promoted"]
        assert (promoted["hours"], promoted["following_hours"]) == (1, 2)
        assert (promoted["hours_to_follow"], promoted["told_to_dagster"]) == (0, 3)
        check_told(instance, promoted["run_id"])
    else:
        with pytest.raises(SystemExit) as ended:
            main((*asked, "--promote"), environ)
        assert not ended.value.code
        shown = capsys.readouterr().out
        assert "1 hours computed, and 2 that follow from them" in shown
        assert "Dagster shows 3 hours" in shown
        check_told(instance, shown.split("run ")[-1].split(";")[0])
    assert dirty(environ) == []


def test_a_retry_tells_its_hours_and_those_that_follow(
    environ: dict[str, str], instance: DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(environ["IIOT_PLANT"]).write_text(PLANT % (TOPIC, 10), encoding="utf-8")
    found = answer(environ, capsys, "quarantine", "retry")
    (line,) = found["lines"]
    assert (line["decoded"], line["tried"]) == (5, 5)
    assert (len(line["hours"]), line["following_hours"], line["hours_to_follow"]) == (1, 2, 0)
    assert found["told_to_dagster"] == 3
    check_told(instance, found["run_id"])
    assert dirty(environ) == []
