import yaml

from iiot_platform.cli.browse import _lines
from iiot_platform.cli.mqtt_listener import Births, shown
from iiot_platform.config.plant import Plant
from tests.servers.sparkplug import metric, payload


def test_metrics_have_names_once_their_birth_was_heard() -> None:
    names: Births = {}
    alone = metric(-5, datatype=3, alias=7, send_type=False)
    data = payload(alone, metric(-2, datatype=3, name="Step"), seq=1)
    assert shown("spBv1.0/G/DDATA/E/D", data, names) == "#7=4294967291, Step=-2"
    birth = payload(metric(1, datatype=3, alias=7, name="Temp"), seq=0)
    assert shown("spBv1.0/G/DBIRTH/E/D", birth, names) == "Temp=1"
    assert shown("spBv1.0/G/DDATA/E/D", data, names) == "Temp=-5, Step=-2"
    assert shown("spBv1.0/G/DDATA/E/D2", data, names).startswith("#7=")


def test_other_payloads_are_text() -> None:
    assert shown("line1/m/a", b'{"n": 1}', {}) == '{"n": 1}'
    assert shown("line1/m/a", b"\xff", {}) == "\ufffd"
    assert shown("spBv1.0/G/DDATA/E/D", b"\xff", {}).startswith("not_sparkplug")


def test_lines_for_the_plant_file_take_what_was_heard() -> None:
    heard = ["line1/m/a", "line1", "G/m/a", "spBv1.0/G/DDATA/E/D", "spBv1.0/H/NDATA/E"]
    plant = Plant.model_validate(yaml.safe_load("\n".join(_lines(heard))))
    assert plant.line_names == ("G", "H", "line1")
    groups = {line.name: line.sparkplug and line.sparkplug.nodes[0].group for line in plant.lines}
    assert groups == {"G": "G", "H": "H", "line1": None}
