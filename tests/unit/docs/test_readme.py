"""What the README tells people to write is valid."""

import re
from pathlib import Path

from iiot_platform.config.plant_file import load_plant
from iiot_platform.core.names import SeriesKey

README = Path(__file__).parents[3] / "README.md"


def test_the_plant_file_is_one(tmp_path: Path) -> None:
    text = README.read_text()
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    file = tmp_path / "plant.yaml"
    file.write_text(block[1])
    plant = load_plant(file, {"MQTT_PASSWORD": "secret"})
    assert plant.line_names == ("press", "packer")
    key = SeriesKey("signal", "hydraulics", "pressure1")
    assert plant.line_settings("press").detector(key).resolution == 0.1
    assert plant.line_settings("packer").detector(key).window == 300
