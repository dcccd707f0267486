from pathlib import Path

import yaml
from pydantic import SecretStr

from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.config.plant_file import load_plant
from simulator.broker_link import BrokerAddress
from simulator.scenario_file import load_scenario
from simulator.twin import OpcUaTwin, plant_yaml


def test_the_twin_names_the_lines_and_nothing_else() -> None:
    assert yaml.safe_load(plant_yaml(load_scenario())) == {
        "name": "default",
        "lines": [{"name": "line1"}, {"name": "line2"}],
    }


def test_a_broker_becomes_the_source_without_its_password() -> None:
    broker = BrokerAddress(host="plc's", port=18_830, username="sim", password=SecretStr("s3"))
    text = plant_yaml(load_scenario(), broker)
    assert "s3" not in text
    assert yaml.safe_load(text)["sources"] == [
        {"kind": "mqtt", "host": "plc's", "port": 18_830, "username": "sim"}
    ]


def test_a_server_brings_its_lines_and_states_are_states(tmp_path: Path) -> None:
    server = OpcUaTwin("opc.tcp://127.0.0.1:4840", ("line2",), "iiot", Path("pw"), 600.0)
    (tmp_path / "pw").write_text("s3cret")
    path = tmp_path / "plant.yaml"
    path.write_text(plant_yaml(load_scenario(), BrokerAddress(), server))
    plant = load_plant(path, {})
    assert [plant.source_of(line).name for line in ("line1", "line2")] == ["mqtt", "opcua"]
    source = plant.sources[1]
    assert isinstance(source, OpcUaSource)
    assert (source.security, source.first_history_s) == ("sign_and_encrypt", 600.0)
    assert [(node.path, node.kind) for node in source.nodes] == [
        ("Plant/line2/*/*_state", "state"),
        ("Plant/line2/*/*", None),
    ]
