import yaml

from iiot_platform.cli.browse_lines import chooser, mqtt_lines, opcua_lines
from iiot_platform.cli.mqtt_listener import Births, shown
from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.config.plant import MqttSource, Plant
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


def plant_of(topics: list[str], *, by_node: bool = False) -> Plant:
    lines = mqtt_lines(MqttSource(), topics, "password: none", by_node=by_node)
    return Plant.model_validate(yaml.safe_load("\n".join(lines)))


def test_lines_for_the_plant_file_take_what_was_heard() -> None:
    heard = ["line1/m/a", "line1", "G/m/a", "spBv1.0/G/DDATA/E/D", "spBv1.0/H/NDATA/E"]
    plant = plant_of(heard)
    assert plant.line_names == ("G", "H", "line1")
    groups = {line.name: line.sparkplug and line.sparkplug.nodes[0].group for line in plant.lines}
    assert groups == {"G": "G", "H": "H", "line1": None}


def test_of_a_group_only_the_nodes_that_were_chosen_are_named() -> None:
    heard = ["spBv1.0/G/DDATA/E/D", "spBv1.0/G/NDATA/F"]
    (line,) = plant_of(heard, by_node=True).lines
    assert line.sparkplug is not None
    assert [node.edge_node for node in line.sparkplug.nodes] == ["E", "F"]


def test_shapes_choose_names() -> None:
    names = ["Plant/line1/m/a", "Plant/line2/m/a", "Plant/line2/m/b", "Other"]

    def chosen(*patterns: str) -> list[str]:
        return [name for name in names if chooser(patterns)(name)]

    assert chosen() == names
    assert chosen("Plant/line2/*") == names[1:3]
    assert chosen("*/m/a", "Oth?r") == [names[0], names[1], names[3]]
    assert chosen("plant/*") == []


def test_a_folder_is_named_whole_only_where_all_of_it_was_chosen() -> None:
    source = OpcUaSource.model_validate({"url": "opc.tcp://h", "nodes": [{"path": "*/*"}]})

    def named(paths: list[str], others: list[str]) -> list[str]:
        lines = opcua_lines(source, paths, others, "password: none")
        plant = yaml.safe_load("\n".join(lines))
        Plant.model_validate(plant)
        return [node["path"] for node in plant["sources"][0]["nodes"]]

    assert named(["P/a/x", "P/b/x", "P/a/y"], ["P/x"]) == ["P/a/*", "P/b/*"]
    assert named(["P/a/x", "P/b/x", "P/a/y"], ["P/b/y"]) == ["P/a/*", "P/b/x"]
    assert named(["top", "P/a/x"], []) == ["top", "P/a/*"]
