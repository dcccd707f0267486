"""The demo ends when what was published is in its tables, and not before."""

from pathlib import Path

import pytest

from iiot_platform.core.capture_log import Record
from iiot_platform.core.paths import Home
from iiot_platform.demo import outcome
from iiot_platform.demo.drain import Drain
from iiot_platform.demo.progress import Published
from iiot_platform.engine.status import BufferState, LineStatus, PlantStatus
from tests.servers.capture_log import write_segments

MQTT, OPCUA = "line1", "line2"
NOTHING = Published()


def status(**lag_rows: int) -> PlantStatus:
    lines = tuple(LineStatus(line, lag_rows=lag_rows.get(line, 0)) for line in (MQTT, OPCUA))
    return PlantStatus(0, BufferState(), lines)


def value(at: int, *, kept: bool = False) -> Record:
    return Record("opcua", f"{OPCUA}/oven/flow", b'{"SensorValue":1}', at, at, at, 0, kept)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_messages_of_the_broker_are_counted(home: Home) -> None:
    drain, published = Drain(home, ()), Published(per_line={MQTT: 10})
    assert not drain.is_over(status(), {MQTT: (5, 14)}, published, NOTHING)
    assert drain.is_over(status(), {MQTT: (5, 15)}, published, NOTHING)
    assert not drain.is_over(status(line1=1), {MQTT: (5, 15)}, published, NOTHING)


def test_history_is_not_taken_for_the_values_that_are_under_way(home: Home) -> None:
    drain, shown = Drain(home, [OPCUA]), Published(per_line={OPCUA: 4}, shown_per_line={OPCUA: 2})
    write_segments(home, OPCUA, [value(at, kept=True) for at in range(10)] + [value(20)])
    assert not drain.is_over(status(), {OPCUA: (0, 11)}, NOTHING, shown)
    write_segments(home, OPCUA, [value(21)])
    assert drain.is_over(status(), {OPCUA: (0, 12)}, NOTHING, shown)


def test_a_log_that_has_not_grown_is_not_read_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain, shown = Drain(home, [OPCUA]), Published(shown_per_line={OPCUA: 2})
    write_segments(home, OPCUA, [value(20)])
    assert not drain.is_over(status(), {OPCUA: (0, 1)}, NOTHING, shown)
    monkeypatch.setattr(outcome, "captured", None)
    assert not drain.is_over(status(), {OPCUA: (0, 1)}, NOTHING, shown)
