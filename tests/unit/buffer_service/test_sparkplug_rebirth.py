import time
from collections.abc import Callable
from typing import Any

import pytest

from buffer_service.roster import _subscribed
from buffer_service.sources.mqtt_routing import Routing
from buffer_service.sources.node_watch import NodeWatch
from buffer_service.sources.sparkplug_rebirth import RebirthCompanion
from iiot_platform.config.plant import MqttSource, Plant
from iiot_platform.config.sparkplug import SparkplugNodes
from iiot_platform.core import sparkplug
from iiot_platform.core.errors import SourceError
from iiot_platform.core.sparkplug import topic_of
from tests.servers.sparkplug import metric, payload, spoken

DEADLINE_S = 60.0


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


class Watched:
    """A watch, and a node's messages with a `seq` that counts by itself."""

    def __init__(self, *, counted: bool = True) -> None:
        self.watch = NodeWatch(counted=counted)
        self.seq = -1

    def hears(
        self,
        kind: str,
        place: str = "G/E",
        *metrics: Any,
        seq: int | None = None,
        ts: int | None = None,
    ) -> str | None:
        self.seq = (0 if kind == "NBIRTH" else (self.seq + 1) % 256) if seq is None else seq
        record = spoken(kind, place, payload(*metrics, ts=ts, seq=self.seq), 0)
        topic = topic_of(record.topic)
        assert topic is not None
        return self.watch.trouble(topic, sparkplug.decode(record.payload))


TEMP = metric(1.0, datatype=10, name="Temp", alias=0)


def test_a_node_that_is_born_and_counts_on_gives_no_trouble() -> None:
    node = Watched()
    assert node.hears("NBIRTH", "G/E", TEMP) is None
    assert node.hears("DBIRTH", "G/E/D", metric(1.0, datatype=10, name="Load", alias=5)) is None
    for _ in range(600):
        assert node.hears("NDATA", "G/E", metric(alias=0)) is None
        assert node.hears("DDATA", "G/E/D", metric(name="Load")) is None
    assert not node.watch.missing
    assert node.hears("NBIRTH", "G/E", TEMP) is None


def test_what_is_missing_is_trouble() -> None:
    node = Watched()
    assert "no birth of 'G/E'" in str(node.hears("NDATA", "G/E", metric(alias=0)))
    assert node.hears("NBIRTH", "G/E", TEMP) is None
    assert "no birth of 'G/E/D'" in str(node.hears("DDATA", "G/E/D", metric(alias=0)))
    assert "no birth has named" in str(node.hears("NDATA", "G/E", metric(alias=9)))
    node.watch.forget()
    assert "no birth" in str(node.hears("NDATA", "G/E", metric(alias=0)))


def test_births_and_deaths_end_what_was_known() -> None:
    node = Watched()
    node.hears("NBIRTH", "G/E", TEMP)
    node.hears("DBIRTH", "G/E/D", TEMP)
    assert node.hears("NBIRTH", "G/E", TEMP) is None
    assert "no birth of 'G/E/D'" in str(node.hears("DDATA", "G/E/D", metric(alias=0)))
    node.hears("DBIRTH", "G/E/D", TEMP)
    assert node.hears("DDEATH", "G/E/D") is None
    assert "no birth of 'G/E/D'" in str(node.hears("DDATA", "G/E/D", metric(alias=0)))
    assert node.hears("NDEATH") is None
    assert "no birth of 'G/E'" in str(node.hears("NDATA", "G/E", metric(alias=0)))


def test_the_death_of_an_earlier_session_ends_nothing() -> None:
    node = Watched()
    node.hears("NBIRTH", "G/E", TEMP, metric(2, datatype=8, name="bdSeq"))
    node.hears("NDEATH", "G/E", metric(1, datatype=8, name="bdSeq"), seq=0)
    assert node.hears("NDATA", "G/E", metric(alias=0)) is None
    node.hears("NDEATH", "G/E", metric(2, datatype=8, name="bdSeq"), seq=0)
    assert node.hears("NDATA", "G/E", metric(alias=0)) is not None


def test_holes_are_what_does_not_come_after_all() -> None:
    node = Watched()
    node.hears("NBIRTH", "G/E", TEMP)
    for seq in (1, 4, 5):
        node.hears("NDATA", "G/E", metric(alias=0), seq=seq)
    assert node.watch.missing == {2, 3}
    node.hears("NDATA", "G/E", metric(alias=0), seq=3)
    assert node.watch.missing == {2}
    node.hears("NDATA", "G/E", metric(alias=0), seq=6)
    node.hears("NDATA", "G/E", metric(alias=0), seq=2)
    assert not node.watch.missing
    node.hears("NDATA", "G/E", metric(alias=0), seq=254)
    assert len(node.watch.missing) == 247
    node.watch.skip()
    node.hears("NDATA", "G/E", metric(alias=0), seq=255)
    node.hears("NDATA", "G/E", metric(alias=0), seq=1)
    assert node.watch.missing == {0}
    node.hears("NBIRTH", "G/E", TEMP)
    assert not node.watch.missing


def test_holes_are_none_where_not_every_message_is_heard() -> None:
    node = Watched(counted=False)
    node.hears("NBIRTH", "G/E", TEMP)
    node.hears("NDATA", "G/E", metric(alias=0), seq=77)
    assert not node.watch.missing


def test_the_birth_of_a_device_may_overtake_that_of_its_node() -> None:
    node = Watched()
    for seq in range(78):
        node.hears("NBIRTH" if seq == 0 else "NDATA", "G/E", TEMP, seq=seq, ts=500)
    node.hears("DBIRTH", "G/E/D", TEMP, seq=1, ts=1_000)
    node.hears("NBIRTH", "G/E", TEMP, seq=0, ts=1_000)
    assert node.hears("DDATA", "G/E/D", metric(alias=0), seq=2, ts=1_000) is None
    assert not node.watch.missing
    node.hears("NBIRTH", "G/E", TEMP, seq=0, ts=1_001)
    assert "no birth of 'G/E/D'" in str(node.hears("DDATA", "G/E/D", metric(alias=0), seq=2))


def test_the_birth_of_a_device_comes_too_early_by_more_than_its_reader_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node, now_s = Watched(), [5.0]
    monkeypatch.setattr("buffer_service.sources.node_watch.time.monotonic", lambda: now_s[0])
    node.hears("DBIRTH", "G/E/D", TEMP, seq=1, ts=1_000)
    assert node.watch.missing == {0}
    now_s[0] += 1.5
    node.hears("NBIRTH", "G/E", TEMP, seq=0, ts=1_000)
    assert not node.watch.missing
    assert "no birth of 'G/E/D'" in str(node.hears("DDATA", "G/E/D", metric(alias=0), seq=2))


class Broker:
    """Notes what is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuses = False
        self.refused = 0

    def __call__(self, topic: str, body: bytes) -> None:
        if self.refuses:
            self.refused += 1
            raise SourceError("the broker refuses")
        assert sparkplug.decode(body).metrics[0].name == sparkplug.REBIRTH
        self.asked.append(topic)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    """For companions that look more often than once a second whether somebody is to be asked."""
    monkeypatch.setattr("buffer_service.sources.sparkplug_rebirth._TURN_S", 0.02)
    return Broker()


def companion(broker: Broker, first_s: float = 60.0, reorder_s: float = 60.0) -> RebirthCompanion:
    nodes = [SparkplugNodes(group="G")]
    return RebirthCompanion(MqttSource(), nodes, ask=broker, first_s=first_s, reorder_s=reorder_s)


def data(place: str = "G/E", seq: int = 5) -> tuple[str, bytes]:
    record = spoken("NDATA", place, payload(metric(alias=1), seq=seq), 0)
    return record.topic, record.payload


def birth(place: str = "G/E") -> tuple[str, bytes]:
    record = spoken("NBIRTH", place, payload(metric(name="a", alias=1), seq=0), 0)
    return record.topic, record.payload


def test_each_node_is_asked_once_however_much_it_sends(broker: Broker) -> None:
    asking = companion(broker)
    asking.start()
    for seq in range(200):
        asking.observe(*data(seq=seq))
    asking.observe(*data("H/E"))
    asking.observe("spBv1.0/G/NDATA/E", b"\xff")
    asking.observe(*data("G/E2"))
    until(lambda: len(broker.asked) == 2)
    asking.stop()
    assert broker.asked == ["spBv1.0/G/NCMD/E", "spBv1.0/G/NCMD/E2"]
    assert asking.requests == 2


def test_a_node_that_does_not_answer_is_asked_again_and_a_birth_ends_it(broker: Broker) -> None:
    asking = companion(broker, first_s=0.05)
    asking.start()
    asking.observe(*data())
    until(lambda: len(broker.asked) >= 2)
    asking.observe(*birth())
    asking.observe(*data(seq=1))
    asking.observe(*data("G/E2"))
    until(lambda: broker.asked[-1].endswith("E2"))
    assert asking._nodes["G/E"].asked.reason is None
    asking.stop()


def test_messages_that_stay_away_are_a_reason_to_ask(broker: Broker) -> None:
    asking = companion(broker, reorder_s=0.0)
    asking.start()
    asking.observe(*birth())
    asking.observe(*data(seq=1))
    asking.observe(*birth("G/E2"))
    asking.observe(*data("G/E2", seq=2))
    until(lambda: broker.asked)
    asking.stop()
    assert broker.asked == ["spBv1.0/G/NCMD/E2"]


def test_the_birth_of_a_device_without_that_of_its_node_is_a_reason_to_ask(broker: Broker) -> None:
    asking = companion(broker, reorder_s=0.0)
    asking.start()
    record = spoken("DBIRTH", "G/E/D", payload(metric(name="a", alias=1), seq=1), 0)
    asking.observe(record.topic, record.payload)
    until(lambda: broker.asked)
    asking.stop()
    assert broker.asked == ["spBv1.0/G/NCMD/E"]


def test_another_connection_is_a_reason_to_ask_again(broker: Broker) -> None:
    asking = companion(broker, first_s=0.0)
    asking.start()
    asking.observe(*birth())
    asking.observe(*data(seq=1))
    asking.observe(*data("G/E2"))
    until(lambda: broker.asked)
    assert set(broker.asked) == {"spBv1.0/G/NCMD/E2"}
    asking.forget()
    asking.observe(*data(seq=2))
    until(lambda: "spBv1.0/G/NCMD/E" in broker.asked)
    asking.stop()


def test_waits_grow_and_shrink_again() -> None:
    asked = RebirthCompanion.__init__.__globals__["_Asked"](60.0)
    asked.reason = "missing"
    now, waits = 1_000.0, []
    for _ in range(9):
        assert asked.is_due(now)
        asked.note(now)
        assert not asked.is_due(now)
        waits.append(asked._next_at - now)
        now = asked._next_at
    assert waits == [60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600]
    asked.note(now + 10_000)
    assert asked._next_at == now + 10_060


def test_a_broker_that_refuses_is_told_once_and_nothing_stops(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.refuses = True
    asking = companion(broker, first_s=0.0)
    asking.start()
    for _ in range(20):
        asking.observe(*data())
    until(lambda: broker.refused >= 2)
    broker.refuses = False
    until(lambda: broker.asked)
    asking.stop()
    assert sum("can not ask" in r.getMessage() for r in caplog.records) == 1


def test_a_node_that_never_answers_is_named(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    asking = companion(broker, first_s=0.0)
    asking.start()
    for seq in range(20):
        asking.observe(*data(seq=seq))
    until(lambda: len(broker.asked) >= 20)
    asking.stop()
    (said,) = (r.getMessage() for r in caplog.records if r.levelname == "WARNING")
    assert "'G/E' was asked 3 times for its births" in said
    assert "spBv1.0/G/NCMD/E" in said


def test_what_there_is_no_room_for_is_left_out_and_nobody_waits(broker: Broker) -> None:
    asking = companion(broker)
    for _ in range(30_000):
        asking.observe(*data())
    assert asking._queue.qsize() == 10_000
    assert not broker.asked


LINES = [
    {"name": "l1", "sparkplug": {"nodes": [{"group": "G", "edge_node": "E"}]}},
    {"name": "l2", "sparkplug": {"nodes": [{"group": "H", "device": "D"}]}},
]


def routing() -> Routing:
    plant = Plant.model_validate({"lines": LINES})
    settings = plant.sources[0]
    assert isinstance(settings, MqttSource)
    return Routing(*_subscribed(plant, settings))


def test_filters_bring_what_is_needed_and_topics_find_their_line() -> None:
    found = routing()
    assert found.filters == (
        "l1/#",
        "spBv1.0/G/NBIRTH/E",
        "spBv1.0/G/NDATA/E",
        "spBv1.0/G/NDEATH/E",
        "spBv1.0/G/DBIRTH/E/+",
        "spBv1.0/G/DDATA/E/+",
        "spBv1.0/G/DDEATH/E/+",
        "l2/#",
        "spBv1.0/H/NBIRTH/+",
        "spBv1.0/H/NDATA/+",
        "spBv1.0/H/NDEATH/+",
        "spBv1.0/H/DBIRTH/+/D",
        "spBv1.0/H/DDATA/+/D",
        "spBv1.0/H/DDEATH/+/D",
    )
    assert found.subscriptions()["spBv1.0/H/DDATA/+/D"] == "l2"
    for topic, line in {
        "spBv1.0/G/NDATA/E": "l1",
        "spBv1.0/G/DDATA/E/x": "l1",
        "spBv1.0/G/NDATA/E2": None,
        "spBv1.0/G/NCMD/E": None,
        "spBv1.0/H/NDATA/any": "l2",
        "spBv1.0/H/DDATA/any/D": "l2",
        "spBv1.0/H/DDATA/any/D2": None,
        "l1/m/a": "l1",
        "l1": "l1",
    }.items():
        assert found[topic.encode()] == (topic, line), topic
