from pathlib import Path

import pytest

from iiot_platform.cli.app import main


def test_the_plant_file_of_the_option_goes_before_that_of_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"IIOT_HOME": str(tmp_path), "IIOT_PLANT": str(tmp_path / "other.yaml")}
    given = tmp_path / "given.yaml"
    given.write_text("liness: [press]\n")
    with pytest.raises(SystemExit) as ended:
        main(["capture", "--plant", str(given)], environ)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "given.yaml" in said
    assert "liness" in said
    with pytest.raises(SystemExit):
        main(["capture"], environ)
    assert "other.yaml" in capsys.readouterr().err
