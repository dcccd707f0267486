import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from iiot_platform.alerts.backtest import backtest
from iiot_platform.alerts.evaluation import LineState
from iiot_platform.alerts.message import Places
from iiot_platform.alerts.service import QUEUE_LIMIT, AlertService, sole_service
from iiot_platform.alerts.store import MQTT, STATUS_SCOPE, TABLES_SCOPE, AlertStore, Outgoing
from iiot_platform.client import Client
from iiot_platform.config.plant import Plant
from iiot_platform.core.clock import from_ms, now_ms
from iiot_platform.core.errors import StorageError
from iiot_platform.core.paths import Home
from tests.servers.faulty_line import (
    FIRED_S,
    LENGTH_S,
    LINE,
    RESOLVED_S,
    faulty_plant,
    status_file,
    write_faulty_line,
)
from tests.servers.streams import BASE_MS

PLACES = Places("plant", "http://dagster:3000", "http://grafana:3001")
DELAY_S = 20


@dataclass
class Rig:
    home: Home
    plant: Plant
    now_s: float = 0.0

    def service(self) -> AlertService:
        return AlertService(
            self.home, self.plant, PLACES, clock=lambda: round(BASE_MS + self.now_s * 1_000)
        )

    def outbox(self) -> list[dict[str, Any]]:
        with AlertStore(self.home.alerts) as store:
            rows = store._query("SELECT target, id, topic, body FROM outbox ORDER BY seq")
        return [{"target": t, "topic": topic, **json.loads(body)} for t, _, topic, body in rows]

    def told(self) -> list[tuple[str, str, float]]:
        """Rule, state and second of everything that waits for the broker."""
        at = {"firing": "fired_at", "resolved": "resolved_at"}
        return [
            (one["rule"], one["state"], round(_s(one[at[one["state"]]])))
            for one in self.outbox()
            if one["target"] == MQTT
        ]


def _s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() - BASE_MS / 1_000


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return write_faulty_line(tmp_path_factory.mktemp("faulty"), BASE_MS)


@pytest.fixture
def rig(computed: Home) -> Iterator[Rig]:
    yield Rig(computed, faulty_plant())
    for suffix in ("", "-wal", "-shm"):
        Path(f"{computed.alerts}{suffix}").unlink(missing_ok=True)
    (computed.capture / "status.json").unlink(missing_ok=True)


def advance(rig: Rig, *seconds: float, restart: bool = False) -> None:
    """Steps at these seconds of data time; with a restart each by a service of its own."""
    with_one = [rig.service()] if not restart else []
    for at in seconds:
        rig.now_s = at + DELAY_S
        service = with_one[0] if with_one else rig.service()
        service.step()
        if restart:
            service.close()
    for service in with_one:
        service.close()


FAULT = [("anomaly_ratio", "firing", FIRED_S), ("anomaly_ratio", "resolved", RESOLVED_S)]


def test_a_fault_is_told_once_and_so_is_its_end(rig: Rig) -> None:
    advance(rig, 5, FIRED_S - 1)
    assert rig.told() == []
    advance(rig, FIRED_S)
    assert rig.told() == FAULT[:1]
    advance(rig, 200, RESOLVED_S - 1)
    assert rig.told() == FAULT[:1]
    advance(rig, RESOLVED_S, LENGTH_S)
    assert rig.told() == FAULT


@pytest.mark.parametrize("every", [7, 95, 400])
def test_steps_and_restarts_change_nothing(rig: Rig, every: int) -> None:
    advance(rig, *range(1, LENGTH_S, every), LENGTH_S, restart=True)
    assert rig.told() == FAULT


def test_a_replay_agrees(rig: Rig) -> None:
    with closing(Client(rig.home)) as client:
        found = backtest(client, rig.plant, LINE, BASE_MS - 600_000, BASE_MS + LENGTH_S * 1_000)
    (episode,) = found.episodes
    assert (episode.key.rule, episode.key.series) == ("anomaly_ratio", "press/oil")
    assert (episode.fired_ms - BASE_MS) / 1_000 == FIRED_S
    assert episode.end_ms is not None
    assert (episode.end_ms - BASE_MS) / 1_000 == RESOLVED_S


def test_the_message_says_what_where_since_when_and_where_to_look(rig: Rig) -> None:
    advance(rig, 5, FIRED_S)
    (told,) = rig.outbox()
    assert told["topic"] == "iiot/alerts/line1/anomaly_ratio/press/oil"
    assert told["summary"].startswith("line1 press/oil: many anomalies since ")
    assert (told["severity"], told["threshold"], told["value"]) == ("warning", 0.2, 1.0)
    assert _s(told["since"]) == 130
    look = told["look_at"]
    run = "5f1c9c0e-3f7e-4c7e-9a66-0d0d8d1c4b11"
    assert look["run"] == f"http://dagster:3000/runs/{run}"
    assert look["dashboard"] == "http://grafana:3001/d/iiot-signals?var-line=line1"
    assert look["explain"].startswith(
        "iiot explain --line line1 --table signal_anomalies --series press/oil --at 20"
    )


def test_a_device_that_falls_silent_is_told(rig: Rig) -> None:
    rig.plant = faulty_plant(rules={"silent_device": {"threshold": 60, "clear": 20}})
    advance(rig, 5, LENGTH_S, LENGTH_S + 60)
    assert rig.told() == FAULT
    advance(rig, LENGTH_S + 70)
    assert rig.told() == [*FAULT, ("silent_device", "firing", LENGTH_S + 70)]


def test_a_source_that_is_away_is_told_and_its_devices_wait(rig: Rig) -> None:
    rig.plant = faulty_plant(rules={"silent_device": {"threshold": 60, "clear": 20}})
    written = now_ms() + 3_600_000  # the buffer runs, whatever the time is
    status_file(rig.home, written)
    service = rig.service()
    for at in (5, LENGTH_S):
        rig.now_s = at + DELAY_S
        service.step()
    away = {"mqtt": {"state": "disconnected", "reason": "no route"}}
    status_file(rig.home, written, sources=away)
    for at in (LENGTH_S + 10, LENGTH_S + 45, LENGTH_S + 300):
        rig.now_s = at + DELAY_S
        service.step()
    service.close()
    assert rig.told() == [*FAULT, ("capture_down", "firing", LENGTH_S + 45 + DELAY_S)]
    last = rig.outbox()[-1]
    assert last["topic"] == "iiot/alerts/line1/capture_down/source/mqtt"
    assert last["summary"].endswith("source mqtt is disconnected: no route")


STEP_S = 10.0


def step_status(rig: Rig, *reports: dict[str, Any]) -> list[dict[str, Any]]:
    """Steps with these reports of the buffer, one each ten seconds; what was told."""
    written = now_ms() + 3_600_000  # the buffer runs, whatever the time is
    with closing(rig.service()) as service:
        for report in reports:
            source = {"state": "connected", "reason": "", **report.get("mqtt", {})}
            disk = {"disk": report["disk"]} if "disk" in report else {}
            status_file(rig.home, written, sources={"mqtt": source}, **disk)
            rig.now_s += STEP_S
            service.step()
    return [one for one in rig.outbox() if one["rule"] in {"messages_dropped", "disk_low"}]


def dropped(buffer: int, broker: int | None) -> dict[str, Any]:
    said = {} if broker is None else {"broker_dropped": broker}
    return {"mqtt": {"qos0_dropped": buffer, **said}}


SHORT = {"messages_dropped": {"window_s": 60}}


def test_messages_that_are_dropped_are_told_with_their_number_and_place(rig: Rig) -> None:
    rig.plant = faulty_plant(rules=SHORT)
    # what was dropped before anybody looked is no news
    assert step_status(rig, dropped(5, 312), dropped(5, 312)) == []
    assert [one["value"] for one in step_status(rig, dropped(5, 320))] == [8]
    told = step_status(rig, dropped(7, 330))
    assert [(one["series"], one["severity"]) for one in told] == [
        ("broker/mqtt", "critical"),
        ("source/mqtt", "critical"),
    ]
    assert told[0]["topic"] == "iiot/alerts/line1/messages_dropped/broker/mqtt"
    assert "line1 broker/mqtt: messages are lost since " in told[0]["summary"]
    assert "has dropped 8, for this or another client" in told[0]["summary"]
    assert "2 of QoS 0 of source mqtt were dropped" in told[1]["summary"]
    # quiet for as long as the rule says
    assert len(step_status(rig, *[dropped(7, 330)] * 5)) == 2
    over = step_status(rig, dropped(7, 330))[2:]
    assert [(one["series"], one["state"], one["peak"]) for one in over] == [
        ("broker/mqtt", "resolved", 18),
        ("source/mqtt", "resolved", 2),
    ]


def test_a_restart_of_broker_or_buffer_drops_nothing(rig: Rig) -> None:
    rig.plant = faulty_plant(rules=SHORT)
    counts = [(5, 312), (0, None), (0, None), (0, 312), (0, 312), (0, 0)]
    assert step_status(rig, *(dropped(*count) for count in counts)) == []
    # counted anew, from the start of the process
    (told,) = step_status(rig, dropped(3, 0))
    assert (told["series"], told["value"]) == ("source/mqtt", 3)


def test_what_was_dropped_since_a_restart_is_counted_anew(rig: Rig) -> None:
    (told,) = step_status(rig, dropped(9, 312), dropped(4, 312))
    assert (told["series"], told["value"]) == ("source/mqtt", 4)


def disk(level: str) -> dict[str, Any]:
    message = "" if level == "ok" else f"the disk is {level}"
    return {"disk": {"level": level, "free": 1, "total": 2, "message": message}}


def test_a_disk_that_gets_full_is_told_before_it_is(rig: Rig) -> None:
    rig.plant = faulty_plant()
    low, ok = disk("low"), disk("ok")
    # shorter than for_s, then long enough
    assert step_status(rig, ok, low, low, low, ok) == []
    assert step_status(rig, low, low, low) == []
    (told,) = step_status(rig, low)
    assert (told["series"], told["state"], told["severity"]) == ("buffer", "firing", "critical")
    assert told["summary"].endswith("Z: the disk is low")
    # room for a moment ends nothing
    step_status(rig, *[ok] * 6, disk("full"), *[ok] * 6)
    assert len(step_status(rig)) == 1
    _, over = step_status(rig, ok)
    assert (over["state"], over["peak"]) == ("resolved", 2)


def test_maintenance_holds_back_what_the_buffer_says_too(rig: Rig) -> None:
    until_s = 200
    rig.plant = faulty_plant(
        rules=SHORT, maintenance=[{"name": "m", "from": _clock(0), "to": _clock(until_s)}]
    )
    lost = {**dropped(9, None), **disk("low")}
    assert step_status(rig, dropped(0, None), *[lost] * 5) == []
    # what began and ended within it is never told, what still fires is told at its end
    while rig.now_s < until_s - STEP_S:
        assert step_status(rig, lost) == []
    (told,) = step_status(rig, lost)
    assert (told["rule"], told["state"], told["held_back"]) == ("disk_low", "firing", True)


def test_maintenance_is_read_from_the_plant_file(rig: Rig) -> None:
    rig.plant = faulty_plant(
        maintenance=[{"name": "m", "from": _clock(100), "to": _clock(FIRED_S + 45)}]
    )
    advance(rig, 5, 170)
    assert rig.told() == []
    advance(rig, FIRED_S + 50)
    assert rig.told() == FAULT[:1]
    assert rig.outbox()[0]["held_back"] is True


def _clock(second: int) -> str:
    return f"{from_ms(BASE_MS + second * 1_000):%Y-%m-%d %H:%M:%S}"


def test_evaluation_rests_while_too_much_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert QUEUE_LIMIT == 10_000
    monkeypatch.setattr("iiot_platform.alerts.service.QUEUE_LIMIT", 1)
    advance(rig, 5, FIRED_S)
    with pytest.raises(StorageError, match="1 messages wait for mqtt"):
        advance(rig, LENGTH_S)
    with AlertStore(rig.home.alerts) as store:
        waiting = store.next(MQTT, now_ms() + 10**12)
        assert waiting is not None
        store.delivered(waiting)
    advance(rig, LENGTH_S)
    assert rig.told() == FAULT[1:]


def test_one_service_serves_a_home(rig: Rig) -> None:
    with (
        sole_service(rig.home),
        pytest.raises(StorageError, match="another 'iiot alerts run'"),
        sole_service(rig.home),
    ):
        pass


def test_a_line_that_has_left_the_plant_is_forgotten(rig: Rig) -> None:
    advance(rig, 5)
    with AlertStore(rig.home.alerts) as store:
        assert set(store.states()) == {(LINE, TABLES_SCOPE), (LINE, STATUS_SCOPE)}
    rig.plant = Plant.model_validate({"lines": ["other"]})
    rig.service().close()
    with AlertStore(rig.home.alerts) as store:
        assert store.states() == {}


def test_a_plant_that_changes_is_followed(rig: Rig) -> None:
    whole, other = rig.plant, Plant.model_validate({"lines": ["other"]})
    rig.plant = other
    with closing(rig.service()) as service:
        rig.now_s = FIRED_S + DELAY_S
        service.step()
        assert rig.told() == []
        service.follow(whole)
        service.step()
        assert rig.told() == FAULT[:1]
        # what fires of a line that leaves is over, once
        service.follow(other)
        told = rig.outbox()[-1]
        assert (told["state"], _s(told["resolved_at"])) == ("resolved", rig.now_s)
        assert told["summary"].endswith("(the line has left the plant)")
        service.step()
        assert len(rig.told()) == 2
        with AlertStore(rig.home.alerts) as store:
            assert {line for line, _ in store.states()} == {"other"}
        # and its rules are those of the file
        changed = faulty_plant(rules={"anomaly_ratio": {"enabled": False}})
        service.follow(changed)
        rig.now_s = LENGTH_S + DELAY_S
        service.step()
        assert len(rig.told()) == 2


def test_a_topic_that_is_spoken_of_again_is_not_cleared(tmp_path: Path) -> None:
    first = Outgoing(MQTT, "1", "t", b"{}", resolved=True)
    with AlertStore(tmp_path / "a.sqlite") as store:
        store.save("l", "s", LineState(0), [first, first._replace(id="2")], 0)
        for expected in ({MQTT: 1}, {"mqtt-clear": 1}):
            waiting = store.next(MQTT, 1)
            assert waiting is not None
            store.delivered(waiting, clear_at_ms=100)
            assert store.waiting() == expected
        assert store.next("mqtt-clear", 99) is None
        assert store.next("mqtt-clear", 100) is not None
