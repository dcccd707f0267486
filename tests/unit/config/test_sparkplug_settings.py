from typing import Any

import pytest
from pydantic import ValidationError

from iiot_platform.config.errors import PlantError
from iiot_platform.config.line_settings import LineSettings
from iiot_platform.config.plant import Plant
from iiot_platform.config.sparkplug import SparkplugNodes
from iiot_platform.core.sparkplug import Topic

OPCUA = {"name": "plc", "kind": "opcua", "url": "opc.tcp://h:4840", "nodes": [{"path": "a/*"}]}


def plant(*lines: dict[str, Any], **more: Any) -> Plant:
    return Plant.model_validate({"lines": list(lines), **more})


def line(name: str, *nodes: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"name": name, "sparkplug": {"nodes": list(nodes), **more}}


def problem(*lines: dict[str, Any], **more: Any) -> str:
    with pytest.raises(PlantError) as caught:
        plant(*lines, **more)
    return str(caught.value)


def test_what_readings_depend_on_is_in_the_settings_and_nothing_else() -> None:
    plain = plant({"name": "l"}).line_settings("l").version
    with_nodes = plant(line("l", {"group": "G"})).line_settings("l")
    assert with_nodes.version != plain
    assert LineSettings.model_validate_json(with_nodes.model_dump_json()) == with_nodes
    silent = plant(line("l", {"group": "G"}, rebirth=False)).line_settings("l")
    assert silent.version == with_nodes.version
    rule = {"match": "*/*/Mode", "kind": "state"}
    assert plant(line("l", {"group": "G"}, metrics=[rule])).line_settings("l").version not in {
        plain,
        with_nodes.version,
    }


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"nodes": []}, "at least 1"),
        ({"nodes": [{"group": "G*"}]}, "a whole name, or '*'"),
        ({"nodes": [{"group": "a/b"}]}, "should not contain '/'"),
        ({"nodes": [{"edge_node": "E"}]}, "Field required"),
        ({"nodes": [{"group": "G", "node": "E"}]}, "Extra inputs"),
        (
            {"nodes": [{"group": "G"}], "metrics": [{"match": "Mode", "kind": "state"}]},
            "<edge node>",
        ),
        ({"nodes": [{"group": "G"}], "metrics": [{"match": "*/*/M", "kind": "valve"}]}, "'state'"),
    ],
)
def test_mistakes_are_named(wrong: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValidationError, match=hint.replace("*", r"\*")):
        plant({"name": "l", "sparkplug": wrong})


def test_an_edge_node_belongs_to_one_line() -> None:
    assert "lines[1].sparkplug.nodes[0]: edge nodes 'G/E' would be those of 'G/*' of line 'a'" in (
        problem(line("a", {"group": "G"}), line("b", {"group": "G", "edge_node": "E"}))
    )
    plant(line("a", {"group": "G"}), line("b", {"group": "H"}))
    devices = [{"group": "G", "edge_node": "E", "device": name} for name in ("D1", "D2")]
    settings = plant(line("a", *devices)).line_settings("a").sparkplug
    assert settings is not None
    assert len(settings.filters) == 9
    assert "devices belong to one line" in problem(line("a", devices[0]), line("b", devices[1]))


def test_edge_nodes_are_not_shared_among_buffers() -> None:
    shared = {"name": "both", "client_id": "a", "shared_group": "buffers"}
    sources = [{"name": "own"}, shared]
    plant(line("a", {"group": "G"}), {"name": "b", "source": "both"}, sources=sources)
    refused = problem({**line("a", {"group": "G"}), "source": "both"}, sources=sources)
    assert "lines[0].sparkplug: the buffers of group 'buffers' share" in refused


def test_two_nodes_are_never_one_machine() -> None:
    assert "could be one machine" in problem(line("a", {"group": "G"}, {"group": "H"}))
    plant(line("a", {"group": "G", "edge_node": "E"}, {"group": "H", "edge_node": "F"}))


def test_a_line_s_topics_leave_those_of_nodes_alone() -> None:
    everything = {"name": "b", "topic": "{machine}/{device}"}
    assert "would bring the topics of Sparkplug" in problem(line("a", {"group": "G"}), everything)
    inside = {"name": "b", "topic": "spBv1.0/G/{machine}/{device}"}
    assert "would bring the topics of Sparkplug" in problem(line("a", {"group": "G"}), inside)


def test_nodes_come_over_mqtt() -> None:
    served = {**line("a", {"group": "G"}), "source": "plc"}
    assert "source 'plc' is no broker" in problem(served, sources=[OPCUA])


def test_what_nodes_take() -> None:
    nodes = SparkplugNodes(group="G", edge_node="E", device="D")
    assert nodes.takes(Topic("G", "NDATA", "E"))
    assert nodes.takes(Topic("G", "DDATA", "E", "D"))
    assert not nodes.takes(Topic("G", "DDATA", "E", "D2"))
    assert not nodes.takes(Topic("G", "NDATA", "E2"))
