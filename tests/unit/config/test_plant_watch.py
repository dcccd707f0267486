from pathlib import Path

import pytest

from iiot_platform.config.errors import PlantFileError
from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_watch import REST_LOOKS, PlantWatch

ONE = "lines: [line1]\n"
TWO = "lines: [line1, line2]\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "plant.yaml"
    path.write_text(ONE)
    return path


def looked(watch: PlantWatch, times: int = REST_LOOKS + 1) -> Plant | None:
    """What the last of some looks finds; those before it find nothing."""
    for _ in range(times - 1):
        assert watch.look() is None
    return watch.look()


def test_a_changed_file_is_read_once_it_rests(path: Path) -> None:
    watch = PlantWatch(path, {})
    assert watch.load().line_names == ("line1",)
    assert looked(watch) is None
    path.write_text("lines: [line1, li")
    assert watch.look() is None
    path.write_text(TWO)
    found = looked(watch)
    assert found is not None
    assert found.line_names == ("line1", "line2")
    assert looked(watch) is None


def test_a_folder_that_is_exchanged_as_a_whole_is_followed(tmp_path: Path) -> None:
    # as Kubernetes mounts a ConfigMap: plant.yaml -> ..data/plant.yaml, ..data -> ..1
    for name, text in (("..1", ONE), ("..2", TWO)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plant.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "plant.yaml").symlink_to("..data/plant.yaml")
    watch = PlantWatch(tmp_path / "plant.yaml", {})
    assert watch.load().line_names == ("line1",)
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    found = looked(watch)
    assert found is not None
    assert found.line_names == ("line1", "line2")


def test_a_broken_file_is_told_once_and_changes_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = PlantWatch(path, {})
    watch.load()
    path.write_text("lines: []\n")
    assert looked(watch) is None
    assert "should have at least one entry" in watch.problem
    assert looked(watch) is None
    assert len(caplog.records) == 1
    path.unlink()
    assert looked(watch) is None
    assert looked(watch) is None
    assert "plant.yaml" in watch.problem
    path.write_text(TWO)
    assert looked(watch) is not None
    assert watch.problem == ""


def test_a_signal_reads_it_whatever_it_looks_like(path: Path) -> None:
    path.write_text("lines: [line1]\nsources: [{password: '${WORD}'}]\n")
    environ = {"WORD": "one"}
    watch = PlantWatch(path, environ)
    before = watch.load()
    assert watch.look(at_once=True) == before
    environ["WORD"] = "two"
    assert watch.look() is None
    assert watch.look(at_once=True) != before


def test_the_first_plant_must_be_valid(tmp_path: Path) -> None:
    with pytest.raises(PlantFileError):
        PlantWatch(tmp_path / "none.yaml", {}).load()
