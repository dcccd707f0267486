import json
import socket
from pathlib import Path

from iiot_platform.demo.ports import (
    HOST,
    PortClaims,
    answers,
    any_free_port,
    choose_ports,
    is_free,
)


def test_the_usual_port_is_taken_where_it_is_free(tmp_path: Path) -> None:
    usual = any_free_port()

    with PortClaims() as claims:
        assert choose_ports(tmp_path / "ports.json", claims, {"mqtt": usual}) == {"mqtt": usual}


def test_two_that_start_at_once_do_not_meet(tmp_path: Path) -> None:
    usual = any_free_port()
    with PortClaims() as first, PortClaims() as second:
        ports = choose_ports(tmp_path / "first.json", first, {"mqtt": usual})
        # nobody listens yet
        others = choose_ports(tmp_path / "second.json", second, {"mqtt": usual})
    assert ports == {"mqtt": usual}
    assert others["mqtt"] != usual
    with PortClaims() as next_one:
        assert choose_ports(tmp_path / "first.json", next_one, {"mqtt": usual}) == ports


def test_another_port_is_chosen_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "home" / "ports.json"
    with socket.create_server((HOST, 0)) as taken:
        usual = taken.getsockname()[1]
        assert answers(usual)
        assert not is_free(usual)
        with PortClaims() as claims:
            chosen = choose_ports(path, claims, {"mqtt": usual})
        assert chosen["mqtt"] != usual

    assert is_free(usual)
    with PortClaims() as claims:
        assert choose_ports(path, claims, {"mqtt": usual}) == chosen


def test_no_port_is_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    port = any_free_port()
    path.write_text(json.dumps({"a": port, "b": port}), encoding="utf-8")

    with PortClaims() as claims:
        chosen = choose_ports(path, claims, {"a": 1, "b": port})

    assert chosen["a"] == port
    assert chosen["b"] != port
