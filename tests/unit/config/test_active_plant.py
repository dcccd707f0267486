from pathlib import Path

import pytest

from iiot_platform.config.active_plant import activate, active_path, examine, plant_in_force
from iiot_platform.config.errors import PlantFileError
from iiot_platform.config.plant import MqttSource
from iiot_platform.config.settings import Settings
from iiot_platform.core.paths import Home

BROKEN = "lines: [line1]\nwindow: 3\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "etc"
    folder.mkdir()
    return Settings(home=Home(tmp_path / "var"), plant_path=folder / "plant.yaml")


def write(settings: Settings, text: str) -> None:
    settings.plant_path.write_text(text, encoding="utf-8")


def test_a_valid_file_comes_in_force_when_it_is_activated(settings: Settings) -> None:
    write(settings, "lines: [line1]")
    assert activate(settings, {}).problem is None
    write(settings, "lines: [line1, line2]")
    assert plant_in_force(settings, {}).line_names == ("line1",)
    activate(settings, {})
    assert plant_in_force(settings, {}).line_names == ("line1", "line2")


def test_a_broken_edit_leaves_the_last_valid_file_in_force(settings: Settings) -> None:
    write(settings, "lines: [line1]")
    activate(settings, {})
    write(settings, BROKEN)
    for look in (activate, examine):
        plant, problem = look(settings, {})
        assert plant.line_names == ("line1",)
        assert f"{settings.plant_path}:2: window: no such field" in str(problem)
    settings.plant_path.unlink()
    assert activate(settings, {}).plant.line_names == ("line1",)


def test_a_broken_file_with_none_before_it_is_an_error(settings: Settings) -> None:
    write(settings, BROKEN)
    with pytest.raises(PlantFileError):
        activate(settings, {})
    assert not settings.home.root.exists()


def test_before_anything_was_activated_the_file_itself_counts(settings: Settings) -> None:
    write(settings, "lines: [line1]")
    assert plant_in_force(settings, {}).line_names == ("line1",)
    assert not active_path(settings.home).exists()


def test_secrets_do_not_land_in_the_copy_and_paths_stay_right(settings: Settings) -> None:
    (settings.plant_path.parent / "secret").write_text("from-file", encoding="utf-8")
    write(
        settings,
        "sources:\n"
        "  - {kind: mqtt, name: a, username: u, password: '${MQTT_PASSWORD}'}\n"
        "  - {kind: mqtt, name: b, username: u, password_file: secret}\n"
        "lines: [line1]\n",
    )
    environ = {"MQTT_PASSWORD": "from-environment"}
    activate(settings, environ)
    text = active_path(settings.home).read_text(encoding="utf-8")
    assert "${MQTT_PASSWORD}" in text
    assert "from-" not in text
    passwords = [
        source.password.get_secret_value()
        for source in plant_in_force(settings, environ).sources
        if isinstance(source, MqttSource) and source.password
    ]
    assert passwords == ["from-environment", "from-file"]
    assert list(settings.home.root.iterdir()) == [active_path(settings.home)]
