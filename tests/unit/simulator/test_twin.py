import yaml
from pydantic import SecretStr

from simulator.broker_link import BrokerAddress
from simulator.scenario_file import load_scenario
from simulator.twin import plant_yaml


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
