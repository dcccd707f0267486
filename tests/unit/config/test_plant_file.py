from pathlib import Path

import pytest

from iiot_platform.config.errors import PlantFileError
from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant

CASES = sorted((Path(__file__).parents[2] / "data" / "plant_files").iterdir())


def loaded(folder: Path, text: str, environ: dict[str, str] | None = None) -> Plant:
    path = folder / "plant.yaml"
    path.write_text(text, encoding="utf-8")
    return load_plant(path, environ or {})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_file_is_told_line_by_line(case: Path) -> None:
    with pytest.raises(PlantFileError) as caught:
        load_plant(case / "plant.yaml", {})

    told = str(caught.value).replace(f"{case}/", "")
    assert told + "\n" == (case / "expected.txt").read_text(encoding="utf-8")


def test_the_smallest_file_is_one_line(tmp_path: Path) -> None:
    assert loaded(tmp_path, "lines: [line1]").line_names == ("line1",)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PlantFileError, match=r"none\.yaml: no such file; set IIOT_PLANT"):
        load_plant(tmp_path / "none.yaml", {})


def test_a_folder_is_no_plant_file(tmp_path: Path) -> None:
    with pytest.raises(PlantFileError, match="can not be read: Is a directory"):
        load_plant(tmp_path, {})


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "plant.yaml").write_bytes(b"lines: [\xff]")
    with pytest.raises(PlantFileError, match=r"not UTF-8 text \(byte 8\)"):
        load_plant(tmp_path / "plant.yaml", {})


def test_secrets_come_from_the_environment_and_are_never_shown(tmp_path: Path) -> None:
    text = "sources: [{host: 'h-${SITE}', password: '${PW}'}]\nlines: [line1]"
    plant = loaded(tmp_path, text, {"SITE": "7", "PW": "hunter2"})

    password = plant.sources[0].password
    assert password is not None
    assert password.get_secret_value() == "hunter2"
    assert plant.sources[0].host == "h-7"
    assert "hunter2" not in repr(plant)


def test_a_value_from_the_environment_is_never_repeated(tmp_path: Path) -> None:
    text = "sources: [{port: '${PW}', client_id: ''}]\nlines: [line1]"
    with pytest.raises(PlantFileError) as caught:
        loaded(tmp_path, text, {"PW": "hunter2"})

    assert "got '${PW}'" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_variable_can_give_a_number(tmp_path: Path) -> None:
    plant = loaded(tmp_path, "sources: [{port: '${P}'}]\nlines: [line1]", {"P": "1999"})

    assert plant.sources[0].port == 1999


def test_a_doubled_dollar_is_a_dollar(tmp_path: Path) -> None:
    plant = loaded(tmp_path, "sources: [{username: '$${NAME}'}]\nlines: [line1]")

    assert plant.sources[0].username == "${NAME}"


def test_a_password_file_lies_beside_the_plant_file(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("hunter2\n", encoding="utf-8")
    plant = loaded(tmp_path, "sources: [{password_file: pw, tls: {ca_file: ca.pem}}]\nlines: [x]")

    source = plant.sources[0]
    assert source.password is not None
    assert source.password.get_secret_value() == "hunter2"
    assert source.tls is not None
    assert source.tls.ca_file == tmp_path / "ca.pem"


def test_password_and_password_file_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(PlantFileError, match="'password' is given too"):
        loaded(tmp_path, "sources: [{password: '${P}', password_file: x}]\nlines: [x]", {"P": "p"})


def test_words_that_only_look_like_other_types_stay_words(tmp_path: Path) -> None:
    assert loaded(tmp_path, "lines: [no, 'on', 1:30, 2026-11-22]").line_names == (
        "no",
        "on",
        "1:30",
        "2026-11-22",
    )


def test_merged_mappings_give_way_to_what_is_written(tmp_path: Path) -> None:
    text = """
    lines:
      - &first {name: line1, max_future_s: 9, defaults: {signal: {window: 10}}}
      - <<: *first
        name: line2
        defaults: {valve: {window: 20}}
    """
    plant = loaded(tmp_path, text)

    assert plant.line("line2").max_future_s == 9.0
    assert plant.line_settings("line2").defaults.signal.window == 200
    assert plant.line_settings("line2").defaults.valve.window == 20


def test_problems_of_all_sorts_are_listed_together(tmp_path: Path) -> None:
    text = "lines: [line1, line1]\nbatches: {intervals: 1}\nsources: [{host: '${NONE}'}]\n"
    with pytest.raises(PlantFileError) as caught:
        loaded(tmp_path, text)

    assert [problem.line for problem in caught.value.problems] == [1, 2, 3]
