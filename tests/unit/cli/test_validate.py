import json
import subprocess
import sys
from pathlib import Path

import pytest

from iiot_platform.cli.app import COMMANDS, CommandEntry, frame, main
from iiot_platform.core.errors import StorageError
from iiot_platform.core.pages import asset_prefix


def run(*arguments: str, environ: dict[str, str] | None = None) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments, environ or {})
    return int(caught.value.code or 0)


@pytest.fixture
def plant_path(tmp_path: Path) -> Path:
    path = tmp_path / "plant.yaml"
    path.write_text("lines: [line1, {name: hall, topic: 'a/{machine}/{device}'}]", encoding="utf-8")
    return path


def test_a_valid_file_shows_its_lines(plant_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("validate", str(plant_path)) == 0

    shown = capsys.readouterr().out
    assert "line1/#" in shown
    assert "a/#" in shown
    assert "zscore 3.5 / 200" in shown


def test_a_line_whose_links_lead_nowhere_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plant.yaml"
    path.write_text("lines: [line1, Linie 4 Süd, 50%]", encoding="utf-8")
    assert run("validate", str(path)) == 0
    (note,) = (row for row in capsys.readouterr().out.splitlines() if row.startswith("note"))
    assert note.startswith(f"note: line '50%' is '{asset_prefix('50%')}' in Dagster")


def test_the_plant_file_comes_from_the_environment(
    plant_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("validate", "--json", environ={"IIOT_PLANT": str(plant_path)}) == 0

    lines = json.loads(capsys.readouterr().out)["lines"]
    assert [line["topic_filter"] for line in lines] == ["line1/#", "a/#"]
    assert len({line["settings_version"] for line in lines}) == 2


def test_a_bad_file_exits_with_2_and_its_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plant.yaml"
    path.write_text("lines: [line1]\nname: 12\n", encoding="utf-8")

    assert run("validate", str(path)) == 2
    assert f"{path}:2: name: should be text; got '12'" in capsys.readouterr().err
    assert run("validate", "--json", str(path)) == 2
    assert json.loads(capsys.readouterr().out)["problems"] == [
        {"line": 2, "field": "name", "message": "should be text; got '12'; put it in quotes"}
    ]


def test_a_failure_is_one_line_unless_debugging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise StorageError("the log can not be read")

    monkeypatch.setattr(sys.modules[__name__], "broken", broken, raising=False)
    monkeypatch.setitem(sys.modules, "broken_command", sys.modules[__name__])
    monkeypatch.setitem(COMMANDS, "broken", CommandEntry("broken_command:broken", "fails"))  # type: ignore[arg-type]  # a Mapping to everyone else

    assert run("broken") == 1
    assert capsys.readouterr().err == "the log can not be read\n"
    with pytest.raises(StorageError):
        main(["broken"], {"IIOT_DEBUG": "1"})


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_imported(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    assert frame(name).registered_commands
    assert name in capsys.readouterr().out


def test_help_imports_no_command() -> None:
    code = (
        "import sys\n"
        "from iiot_platform.cli import main\n"
        "try:\n    main(['--help'], {})\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'pydantic', 'pyarrow', 'dagster', 'pandas', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)
