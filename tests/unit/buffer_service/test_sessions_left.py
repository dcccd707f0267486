import logging
from pathlib import Path

import pytest

from buffer_service.sessions_left import SessionsLeft, session_of
from buffer_service.sources.mqtt_subscriptions import Subscriptions, subscriptions_file
from iiot_platform.config.plant import MqttSource, Plant


def plant(*client_ids: str) -> Plant:
    sources = [{"name": f"m{n}", "client_id": one} for n, one in enumerate(client_ids)]
    return Plant.model_validate({"sources": sources, "lines": ["line1"]})


def had(folder: Path, client_id: str, expiry_s: int = 3_600) -> MqttSource:
    """A source that a session was made for."""
    settings = MqttSource(name=client_id, client_id=client_id, session_expiry_s=expiry_s)
    path = subscriptions_file(folder, client_id)
    Subscriptions(path, session_of(settings).text, expiry_s).add({"line1/#": "line1"})
    return settings


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING)
    return caplog


def test_what_no_source_has_any_more_is_told_at_each_start_until_it_is_over(
    tmp_path: Path, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000_000]
    monkeypatch.setattr("buffer_service.sessions_left.now_ms", lambda: now[0])
    had(tmp_path, "old")
    had(tmp_path, "still")
    for _ in range(2):
        said.clear()
        SessionsLeft(tmp_path).begin(plant("still"))
        (line,) = said.messages
        assert "127.0.0.1:1883 goes on collecting for client id 'old'" in line
        assert "until 1970-01-01 01:16 UTC" in line
        assert "mosquitto_sub -h 127.0.0.1 -p 1883 -V 5 -i old -t none -E" in line
    now[0] += 3_600_001
    for _ in range(2):
        said.clear()
        SessionsLeft(tmp_path).begin(plant("still"))
        assert not said.messages
    assert [path.name for path in tmp_path.iterdir()] == ["subscriptions-still.json"]


def test_a_reload_tells_once_and_a_source_that_comes_back_ends_it(
    tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    left = SessionsLeft(tmp_path)
    old = had(tmp_path, "old", 2**32 - 1)
    left.begin(plant("old"))
    assert not said.messages
    left.follow(plant("new"), [old, had(tmp_path, "brief", 0)])
    left.follow(plant("newer"), [MqttSource(client_id="new")])
    assert [line.split("'")[1] for line in said.messages] == ["old", "new"]
    assert "for ever" in said.messages[0]
    left.follow(plant("old", "new"), [])
    said.clear()
    SessionsLeft(tmp_path).begin(plant("old", "new"))
    assert not said.messages


@pytest.mark.parametrize("text", ["", "{", "[1]", '[["a", "b", "c", 1, 2]]'])
def test_a_spoilt_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "sessions-left.json").write_text(text)
    (tmp_path / "subscriptions-a.json").write_text(text)
    SessionsLeft(tmp_path).begin(plant("a"))
    assert not (tmp_path / "sessions-left.json").exists()
