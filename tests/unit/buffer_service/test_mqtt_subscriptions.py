import json
from pathlib import Path

import pytest

from buffer_service.sources.mqtt_routing import Routing
from buffer_service.sources.mqtt_subscriptions import Subscriptions, subscriptions_file

SESSION = "iiot-buffer@127.0.0.1:1883"


def kept(path: Path, session: str = SESSION) -> set[str]:
    return set(Subscriptions(path, session).filters)


def test_filters_are_remembered_over_a_restart_for_their_session(tmp_path: Path) -> None:
    path = subscriptions_file(tmp_path, "a/b c")
    first = Subscriptions(path, SESSION)
    assert first.filters == {}
    first.add({"line1/#": "line1", "line2/#": "line2"})
    assert path.parent == tmp_path
    assert kept(path) == {"line1/#", "line2/#"}
    first.discard(["line2/#"])
    assert kept(path) == {"line1/#"}
    assert kept(path, "another@127.0.0.1:1883") == set()
    first.clear()
    assert kept(path) == set()


def test_lines_with_messages_of_qos_0_are_remembered_as_long_as_the_session(
    tmp_path: Path,
) -> None:
    path = subscriptions_file(tmp_path, "mqtt")
    first = Subscriptions(path, SESSION)
    first.add({"line1/#": "line1"})
    first.note_qos0({"line1", "line2"})
    assert Subscriptions(path, SESSION).qos0 == {"line1", "line2"}
    assert kept(path) == {"line1/#"}
    first.note_qos0({"line2"})
    assert Subscriptions(path, SESSION).qos0 == {"line2"}
    first.clear()
    assert Subscriptions(path, SESSION).qos0 == frozenset()


def test_what_is_kept_of_a_session_says_how_long_it_lasts(tmp_path: Path) -> None:
    path = subscriptions_file(tmp_path, "mqtt")
    Subscriptions(path, SESSION, 60).add({"line1/#": "line1"})
    assert json.loads(path.read_text())["expiry_s"] == 60
    Subscriptions(path, SESSION, 90).add({"line1/#": "line1"})
    assert json.loads(path.read_text())["expiry_s"] == 90
    assert kept(path) == {"line1/#"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"filters": ["a"]}', '{"session": 1}', "\0"])
def test_a_spoilt_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "subscriptions.json"
    path.write_text(text)
    subscriptions = Subscriptions(path, SESSION)
    assert subscriptions.filters == {}
    subscriptions.add({"line1/#": "line1"})
    assert kept(path) == {"line1/#"}


def test_a_folder_that_takes_nothing_costs_the_memory_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subscriptions = Subscriptions(tmp_path / "gone" / "subscriptions.json", SESSION)
    subscriptions.add({"line1/#": "line1"})
    assert subscriptions.filters == {"line1/#": "line1"}
    assert "can not be written" in caplog.text


def test_routing_tells_what_changes() -> None:
    one = Routing({"a/": "a", "b/": "b"}, ["a/#", "b/#"])
    assert one[b"a/m/d"] == ("a/m/d", "a")
    assert one[b"c/m/d"] == ("c/m/d", None)
    assert one.subscriptions() == {"a/#": "a", "b/#": "b"}
    assert one.same_as(Routing({"b/": "b", "a/": "a"}, ["a/#", "b/#"]))
    assert not one.same_as(Routing({"a/": "a", "b/": "c"}, ["a/#", "b/#"]))
    assert not one.same_as(Routing({"a/": "a", "b/": "b"}, ["$share/g/a/#", "$share/g/b/#"]))


def test_a_line_that_left_takes_what_no_other_line_does() -> None:
    wide = Routing({"plant/": "all"}, ["$share/g/plant/#"])
    assert wide.subscriptions() == {"$share/g/plant/#": "all"}
    narrow = wide.successor({"plant/line1/": "line1"}, ["plant/line1/#"])
    assert narrow[b"plant/line1/m/d"] == ("plant/line1/m/d", "line1")
    assert narrow[b"plant/line2/m/d"] == ("plant/line2/m/d", "all")
    again = narrow.successor({"plant/": "every"}, ["plant/#"])
    assert again[b"plant/line1/m/d"] == ("plant/line1/m/d", "every")
    assert again[b"elsewhere/m/d"] == ("elsewhere/m/d", None)
