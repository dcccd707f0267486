from pathlib import Path

import pytest
import yaml

from simulator.__main__ import main


def test_twin_prints_a_plant_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["twin"]) == 0
    assert [line["name"] for line in yaml.safe_load(capsys.readouterr().out)["lines"]] == [
        "line1",
        "line2",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--scenario", "none.yaml"], 1, "none.yaml: file: can not be read"),
        (["run", "--lines", "line7"], 1, "there is no line 'line7'"),
        (["run", "--history", "-1"], 2, "history_s: "),
        (["run", "--port", "0"], 2, "port: "),
        (["run", "--password-file", "none"], 1, "password file none can not be read"),
        (["replay", "none.csv", "--line", "l", "--machine", "m"], 1, "none.csv: file: can not"),
        (["replay", "r.csv", "--line", "l", "--machine", "m", "--rate", "x"], 2, "rate: "),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert message in capsys.readouterr().err
