from pathlib import Path
from typing import Any

import pytest

from iiot_platform.config.errors import PlantFileError
from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.config.plant import MqttSource
from iiot_platform.config.plant_file import load_plant

HEAD = """\
sources:
  - kind: opcua
    name: plc
    url: opc.tcp://10.0.0.5
    nodes:
      - path: Plant/oven/*
        line: line2
  - kind: mqtt
    port: 1999
lines:
  - name: line2
    source: plc
  - name: line1
    source: mqtt
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "plant.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> list[tuple[int, str]]:
    with pytest.raises(PlantFileError) as caught:
        load_plant(written(folder, text), {})
    return [(problem.line, problem.text) for problem in caught.value.problems]


def source(**fields: Any) -> OpcUaSource:
    given = {"url": "opc.tcp://plc:4840", "nodes": [{"path": "a/b"}], **fields}
    return OpcUaSource.model_validate(given)


def test_both_kinds_of_sources_stand_in_one_file(tmp_path: Path) -> None:
    plant = load_plant(written(tmp_path, HEAD), {})
    plc, broker = plant.sources
    assert isinstance(plc, OpcUaSource)
    assert isinstance(broker, MqttSource)
    assert plc.url == "opc.tcp://10.0.0.5:4840"
    assert [line.name for line in plant.lines_of("plc")] == ["line2"]


def test_the_password_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    text = HEAD.replace("    nodes:", "    username: u\n    password: ${PW}\n    nodes:")
    plant = load_plant(written(tmp_path, text), {"PW": "s3cret"})
    (tmp_path / "pw").write_text("other\n")
    text = text.replace("password: ${PW}", "password_file: pw\n    server_certificate_file: c.der")
    again = load_plant(written(tmp_path, text), {})
    for source, password in ((plant.sources[0], "s3cret"), (again.sources[0], "other")):
        assert isinstance(source, OpcUaSource)
        assert source.password is not None
        assert source.password.get_secret_value() == password
        assert password not in repr(source)
    assert again.sources[0].server_certificate_file == tmp_path / "c.der"


@pytest.mark.parametrize(
    ("old", "new", "line", "text"),
    [
        ("kind: opcua", "kind: opcau", 2, "sources[0].kind: no such choice; got 'opcau'; did you"),
        ("name: plc", "nam: plc", 3, "sources[0].nam: no such field; did you mean 'name'?"),
        ("name: plc", "client_id: x", 3, "sources[0].client_id: no such field; valid are:"),
        ("opc.tcp://", "http://", 4, "sources[0].url: should be a URL like opc.tcp://host:4840"),
        ("opc.tcp://", "opc.tcp://u:p@", 4, "sources[0].url: should hold no user"),
        ("path: Plant/oven/*", "node: ns=4;s=x", 6, "should name its namespace by URI"),
        ("path: Plant/oven/*", "node: s=x", 6, "should name 'machine' and 'device'"),
        ("path: Plant/oven/*", "path: Plant//*", 6, "should be browse names below Objects"),
        ("path: Plant/oven/*", "pth: Plant", 6, "no such field; did you mean 'path'?"),
        ("        line: line2", "        device: x", 6, "one device for a path with wildcards"),
        ("line: line2", "line: line3", 7, "no line is called 'line3'; did you mean 'line2'?"),
        ("line: line2", "line: line1", 7, "line 'line1' has another source"),
        ("port: 1999", "port: x", 9, "sources[1].port: should be a valid integer; got 'x'"),
        ("port: 1999", "url: x", 9, "sources[1].url: no such field"),
    ],
)
def test_errors_name_line_and_field(
    tmp_path: Path, old: str, new: str, line: int, text: str
) -> None:
    found = problems(tmp_path, HEAD.replace(old, new, 1))
    assert any(at == line and text in said for at, said in found), found


def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    text = HEAD.replace("    nodes:", "    username: u\n    password: s3cret\n    nodes:")
    found = problems(tmp_path, text)
    assert any("a secret should not stand in this file" in said for _, said in found)
    assert "s3cret" not in str(found)


def test_nodes_of_a_source_with_several_lines_name_theirs(tmp_path: Path) -> None:
    text = HEAD.replace("        line: line2\n", "").replace("source: mqtt", "source: plc")
    ((line, said),) = problems(tmp_path, text)
    assert line == 6
    assert said.endswith("should name its line: the lines of source 'plc' are: line1, line2")


@pytest.mark.parametrize(
    ("publishing_ms", "sampling_ms", "keep_s", "least", "asked"),
    [(100, 10, 0, 20, 20), (100, 10, 10, 20, 1_000), (100, 30, 0, 7, 7), (10, 100, 0, 2, 2)],
)
def test_the_queue_is_long_enough(
    publishing_ms: float, sampling_ms: float, keep_s: float, least: int, asked: int
) -> None:
    given = source(
        publishing_interval_ms=publishing_ms, sampling_interval_ms=sampling_ms, keep_s=keep_s
    )
    assert (given.least_queue, given.queue_size) == (least, asked)
