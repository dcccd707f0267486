"""What Grafana is provisioned with follows the plant file and the settings."""

import json
from pathlib import Path

import pytest
import yaml

from iiot_platform.cli.app import main
from iiot_platform.core.boards import DAGSTER_URL

SHIPPED = Path(__file__).parents[3] / "deploy/grafana/dashboards"


def run(words: list[str], environ: dict[str, str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words, environ=environ)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def written(folder: Path, plant: str, **environ: str) -> int:
    path = folder / "plant.yaml"
    path.write_text(plant, encoding="utf-8")
    options = ["--dashboards", str(folder / "boards"), "--alerting", str(folder / "alerting")]
    return run(["grafana", str(SHIPPED), *options, "--plant", str(path)], environ)


def address(board: dict[str, object]) -> str:
    (found,) = (v["query"] for v in board["templating"]["list"] if v["name"] == DAGSTER_URL)  # type: ignore[index]  # JSON
    return str(found)


def test_dashboards_have_the_address_and_the_time_of_the_plant(tmp_path: Path) -> None:
    plant = "{timezone: Europe/Berlin, lines: [line1]}"
    assert written(tmp_path, plant, DAGSTER_UI_URL="https://iiot.plant:8443") == 0
    for path in SHIPPED.glob("*.json"):
        shipped = json.loads(path.read_text(encoding="utf-8"))
        found = json.loads((tmp_path / "boards" / path.name).read_text(encoding="utf-8"))
        assert address(found) == "https://iiot.plant:8443"
        assert found["timezone"] == "Europe/Berlin"
        for variable in found["templating"]["list"]:
            if variable["name"] == DAGSTER_URL:
                variable["query"] = address(shipped)
        assert found | {"timezone": ""} == shipped


def test_rules_are_those_of_the_plant(tmp_path: Path) -> None:
    plant = "{lines: [line1], alerts: {rules: {silent_device: {enabled: false}}}}"
    assert written(tmp_path, plant) == 0
    text = (tmp_path / "alerting" / "rules.yaml").read_text(encoding="utf-8")
    titles = {rule["title"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]}
    assert titles
    assert not any("silent" in title.lower() for title in titles)
    board = json.loads((tmp_path / "boards" / "plant.json").read_text(encoding="utf-8"))
    assert board["timezone"] == ""  # that of whoever looks


def test_a_folder_without_dashboards_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--dashboards", str(tmp_path / "a"), "--alerting", str(tmp_path / "b")]
    plant = tmp_path / "plant.yaml"
    plant.write_text("{lines: [line1]}", encoding="utf-8")
    assert run(["grafana", str(tmp_path), *options, "--plant", str(plant)], {}) == 2
    assert "has no dashboards" in capsys.readouterr().err


def test_rules_alone_are_written_for_a_site(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plant.yaml").write_text("{lines: [line1]}", encoding="utf-8")
    out = tmp_path / "provisioning"
    options = ["--alerting", str(out)]
    assert run(["grafana", *options], {"IIOT_PLANT": str(tmp_path / "plant.yaml")}) == 0
    names = {"rules.yaml", "contact-points.yaml", "policies.yaml", "mute-timings.yaml"}
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()} == names
    assert {path.name for path in out.iterdir()} == names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --dashboards, --alerting or both"),
        (
            [str(SHIPPED), "--alerting", "a"],
            "give deploy/grafana/dashboards and --dashboards together",
        ),
        (["--dashboards", "a"], "give deploy/grafana/dashboards and --dashboards together"),
    ],
    ids=["nothing", "boards alone", "folder alone"],
)
def test_what_is_not_given_is_said(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["grafana", *words], {}) == 2
    assert said in " ".join(capsys.readouterr().err.split())
