import json
import socket
from pathlib import Path

from iiot_platform.demo.ports import HOST, answers, any_free_port, choose_ports, is_free


def test_the_usual_port_is_taken_where_it_is_free(tmp_path: Path) -> None:
    usual = any_free_port()

    assert choose_ports(tmp_path / "ports.json", {"mqtt": usual}) == {"mqtt": usual}


def test_another_port_is_chosen_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "home" / "ports.json"
    with socket.create_server((HOST, 0)) as taken:
        usual = taken.getsockname()[1]
        assert answers(usual)
        assert not is_free(usual)
        chosen = choose_ports(path, {"mqtt": usual})
        assert chosen["mqtt"] != usual

    assert is_free(usual)
    assert choose_ports(path, {"mqtt": usual}) == chosen


def test_no_port_is_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    port = any_free_port()
    path.write_text(json.dumps({"a": port, "b": port}), encoding="utf-8")

    chosen = choose_ports(path, {"a": 1, "b": port})

    assert chosen["a"] == port
    assert chosen["b"] != port
