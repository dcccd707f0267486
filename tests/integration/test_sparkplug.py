"""Sparkplug from end to end: simulator, mosquitto, buffer, engine, tables."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import SecretStr

from buffer_service.service import CaptureService
from iiot_platform.cli.app import main as cli
from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.core import schema
from iiot_platform.core.clock import hour_of, now_ms, partition_key
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.log_export import read_export
from simulator.broker_link import BrokerAddress
from simulator.sparkplug import EdgeNode
from simulator.sparkplug_wire import Metric
from tests.servers.buffer import MQTT_CLIENT
from tests.servers.capture_log import write_segments
from tests.servers.capture_reader import sealed_records
from tests.servers.certificates import Authority
from tests.servers.mosquitto import MosquittoServer, ServerTls, free_port
from tests.servers.sparkplug import metric, payload
from tests.servers.sparkplug_feed import feed
from tests.servers.streams import BASE_MS, HOUR_MS

DEADLINE_S = 60.0
LINE = "line1"
SCENARIO = """
name: small
lines:
  line1:
    press:
      fast: {kind: signal, rate_hz: 20, mean: 5, sigma: 0.1}
      door: {kind: state, rate_hz: 10, sequence: [[1, 1], [0, 1]]}
      motor: {kind: electrical, period_s: 4, running_s: 2}
"""


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in time"
        time.sleep(0.05)


def plant(port: int, *, source: dict[str, Any] | None = None, **more: Any) -> Plant:
    rules = [{"match": "*/*/StateValue", "kind": "state"}]
    nodes = {"nodes": [{"group": LINE}], "metrics": rules, **more}
    return Plant.model_validate(
        {
            "sources": [{"port": port, **(source or {})}],
            "lines": [{"name": LINE, "sparkplug": nodes}],
            "buffer": {"seal_interval_s": 0.2},
        }
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MosquittoServer]:
    with MosquittoServer(tmp_path / "broker") as one:
        yield one


@contextmanager
def capturing(home: Path, setting: Plant) -> Iterator[CaptureService]:
    with CaptureService(Home(home), setting) as service:
        until(lambda: service.statistics()["sources"]["mqtt"]["state"] == "connected", "connection")
        yield service


@contextmanager
def simulated(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    scenario = folder / "scenario.yaml"
    scenario.write_text(SCENARIO)
    arguments = ["--scenario", str(scenario), "--home", str(folder), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", "sparkplug", *arguments],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def topics(home: Path) -> Counter[str]:
    return Counter(record.topic for record in sealed_records(Home(home), LINE))


def rows(engine: Engine, table: schema.Table) -> list[dict[str, Any]]:
    found = []
    for hour in engine.ledger.hours(LINE):
        paths = [file.path for file in engine.ledger.files(LINE, table.name, hour)]
        found += engine.store.read(table, paths).to_pylist()
    return found


def states(engine: Engine, name: str) -> list[int]:
    found = [row for row in rows(engine, schema.STATES) if row["state_name"] == name]
    return [row["value"] for row in sorted(found, key=lambda row: row["ts"])]


def test_a_node_that_is_killed_and_comes_back(server: MosquittoServer, tmp_path: Path) -> None:
    home, setting = tmp_path / "var", plant(server.port)
    dead, birth, data = (f"spBv1.0/{LINE}/{kind}/press" for kind in ("NDEATH", "NBIRTH", "DDATA"))
    with capturing(home, setting):
        with simulated(tmp_path, server.port) as process:
            until(lambda: topics(home)[f"{data}/fast"] > 30, "data")
            process.send_signal(signal.SIGKILL)
            until(lambda: topics(home)[dead] == 1, "the broker's word of the death")
        with simulated(tmp_path, server.port) as process:
            until(lambda: topics(home)[birth] >= 2, "birth")
            begun = topics(home)[f"{data}/fast"]
            until(lambda: topics(home)[f"{data}/fast"] > begun + 10, "data")
            process.terminate()
            process.wait(DEADLINE_S)
            until(lambda: topics(home)[dead] == 2, "the node's own word")
    later = now_ms() + 3 * 3_600_000
    engine = Engine(Home(home), setting, clock=lambda: later)
    while engine.run_batch(LINE, run_id="live", row_cap=40):
        pass
    assert states(engine, "node.Online") == [1, 0, *[1] * (topics(home)[birth] - 1), 0]
    assert states(engine, "fast.Online")[-1] == 0
    assert set(states(engine, "door/StateValue")) <= {0, 1}
    values = {row["sensor_name"] for row in rows(engine, schema.SIGNALS)}
    assert {"fast/SensorValue", "motor/ElectricalData/CurrentL1"} <= values
    assert {gap["source"] for gap in rows(engine, schema.GAPS)} >= {f"{LINE}/press"}
    assert not rows(engine, schema.QUARANTINE)
    hours = engine.ledger.hours(LINE)
    for hour in hours:
        settled = engine.rerun(LINE, hour, run_id="again", kind="settle")
        assert not settled.differences, settled.differences


PLANT = """\
lines:
  - name: line1
    sparkplug:
      nodes: [{group: G}]
defaults:
  signal: {window: 12, rate_window: 10, relearn_after: 8}
"""


def run(folder: Path, *arguments: str) -> int:
    environ = {"IIOT_HOME": str(folder / "var"), "IIOT_PLANT": str(folder / "plant.yaml")}
    with pytest.raises(SystemExit) as caught:
        cli(arguments, environ)
    return int(caught.value.code or 0)


def test_exported_hours_are_read_with_the_births_before_them(tmp_path: Path) -> None:
    here, there, export = (tmp_path / name for name in ("here", "there", "export"))
    for folder in (here, there):
        folder.mkdir()
        (folder / "plant.yaml").write_text(PLANT)
    write_segments(Home(here / "var"), LINE, feed(3, 100, hours=4), rows=7)
    later = BASE_MS + 30 * HOUR_MS
    engine = Engine(Home(here / "var"), load_plant(here / "plant.yaml", {}), clock=lambda: later)
    while engine.run_batch(LINE, run_id="live", row_cap=30):
        pass
    while hours := sorted({*engine.unsettled_hours(LINE), *engine.dirty_hours(LINE)}):
        assert not engine.rerun(LINE, hours[0], run_id="settle", kind="settle").defects
    engine.close()
    first = hour_of(BASE_MS) + 2
    start, end = (f"{key[:10]}T{key[11:]}Z" for key in map(partition_key, (first, first + 2)))
    moments = ("--line", LINE, "--from", start, "--to", end)
    assert run(here, "log", "export", *moments, str(export)) == 0
    part = read_export(export)[1]
    before = [one for one in part.lifecycle if one.offset < part.hours[0].ranges[0][0]]
    assert any(one.topic.split("/")[2] == "NBIRTH" for one in before)
    assert run(there, "log", "import", str(export)) == 0
    assert run(there, "rerun", *moments) == 0
    assert run(there, "log", "verify", "--export", str(export), "--computed") == 0


@contextmanager
def listening(
    port: int, topic_filter: str, login: tuple[str, str] | None = None
) -> Iterator[list[str]]:
    """The topics that a broker has passed on, from now on."""
    heard: list[str] = []
    subscribed = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    if login is not None:
        client.username_pw_set(*login)
    client.on_message = lambda _c, _u, message: heard.append(message.topic)
    client.on_connect = lambda client, *_: client.subscribe(topic_filter, 1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        assert subscribed.wait(DEADLINE_S)
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


def be_born(node: EdgeNode, port: int, login: tuple[str, str] | None = None) -> None:
    """The broker has had a node's births, and data behind them: who comes now has missed them."""
    with listening(port, "spBv1.0/+/DDATA/#", login) as heard:
        report(node, lambda: heard, "births at the broker")
    assert node.births == 1


def test_a_birth_that_was_missed_is_asked_for(server: MosquittoServer, tmp_path: Path) -> None:
    home, setting = tmp_path / "var", plant(server.port)
    node = EdgeNode(BrokerAddress(port=server.port), LINE, "press", ("d",))
    be_born(node, server.port)
    with capturing(home, setting) as service:
        report(node, lambda: topics(home)[f"spBv1.0/{LINE}/DBIRTH/press/d"] >= 1, "the answer")
        report(node, lambda: topics(home)[f"spBv1.0/{LINE}/DDATA/press/d"] >= 5, "data")
        assert service.statistics()["sources"]["mqtt"]["rebirths"] == 1
    node.stop()
    assert node.births >= 2
    engine = Engine(Home(home), setting)
    engine.run_batch(LINE, run_id="live")
    set_aside = rows(engine, schema.QUARANTINE)
    assert {row["reason"] for row in set_aside} == {"unknown_alias"}
    assert {row["sensor_name"] for row in rows(engine, schema.SIGNALS)} == {"d/Temp"}


class DisorderedNode(EdgeNode):
    """An edge node behind a broker that brings its first birth late, or not at all."""

    def __init__(self, port: int, *, lost: bool) -> None:
        super().__init__(BrokerAddress(port=port), LINE, "press", ("d",))
        self._loses = lost
        self._first = True
        self._late: list[tuple[str, bytes, int]] = []

    def _publish(self, kind: str, device: str, metrics: list[Metric], timestamp_ms: int) -> None:
        broker, said = self._client, Said()
        self._client = said
        super()._publish(kind, device, metrics, timestamp_ms)
        self._client = broker
        if kind == "NBIRTH" and self._first:
            self._first = False
            self._late = [] if self._loses else said.messages
            return
        for message in (*said.messages, *self._late):
            broker.publish(*message)
        self._late = []


class Said:
    """Stands where the connection of a node does, and keeps what it publishes."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes, int]] = []

    def publish(self, topic: str, body: bytes, qos: int) -> None:
        self.messages.append((topic, body, qos))


@pytest.mark.parametrize("lost", [False, True], ids=["late", "lost"])
def test_a_node_s_birth_that_comes_late_or_not_at_all(
    server: MosquittoServer, tmp_path: Path, *, lost: bool
) -> None:
    home, setting = tmp_path / "var", plant(server.port)
    node, data = DisorderedNode(server.port, lost=lost), f"spBv1.0/{LINE}/DDATA/press/d"
    node.report("d", now_ms(), {"Temp": 19.0})  # so that the birth names it
    with capturing(home, setting) as service:
        report(node, lambda: node.births == 1 + lost, "birth, or the answer")
        if not lost:
            began = time.monotonic()
            # what is missing is asked for after two seconds
            report(node, lambda: time.monotonic() - began > 3, "silence")
        heard = topics(home)[data]
        report(node, lambda: topics(home)[data] > heard + 5, "data")
        assert service.statistics()["sources"]["mqtt"]["rebirths"] == lost
    node.stop()
    assert node.births == 1 + lost
    order = [r.topic.split("/")[2] for r in sealed_records(Home(home), LINE)]
    assert order[0] == "DBIRTH"
    assert order.count("NBIRTH") == 1
    engine = Engine(Home(home), setting)
    while engine.run_batch(LINE, run_id="live", row_cap=7):
        pass
    found = rows(engine, schema.SIGNALS)
    # one of each message by alias; that of a birth may have the same time as the first of them
    assert len(found) >= order.count("DDATA")
    assert not rows(engine, schema.QUARANTINE)


@pytest.mark.usefixtures("mqtt_client")
def test_births_are_asked_for_with_login_and_certificate(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    broker, own = ca.issue("broker"), ca.issue("buffer")
    encrypted = ServerTls(ca.ca_file, broker.cert_file, broker.key_file, require_client=True)
    plain_port, users = free_port(), {"node": "n0de-word", "buffer": "s3cret-word"}
    source = {
        "client": os.environ[MQTT_CLIENT],
        "username": "buffer",
        "password": users["buffer"],
        "tls": {"ca_file": ca.ca_file, "cert_file": own.cert_file, "key_file": own.key_file},
    }
    home, listener = tmp_path / "var", f"listener {plain_port} 127.0.0.1"
    login = {"username": "node", "password": SecretStr(users["node"])}
    node = EdgeNode(BrokerAddress(port=plain_port, **login), LINE, "press", ("d",))
    with MosquittoServer(tmp_path / "b", users=users, tls=encrypted, lines=[listener]) as server:
        be_born(node, plain_port, ("node", users["node"]))
        with capturing(home, plant(server.port, source=source)) as service:
            report(node, lambda: node.births == 2, "the answer")
            report(node, lambda: topics(home)[f"spBv1.0/{LINE}/DBIRTH/press/d"] >= 1, "birth")
            assert service.statistics()["sources"]["mqtt"]["rebirths"] == 1
        node.stop()
    (asked,) = (line for line in server.log.splitlines() if " as iiot-buffer-rebirth " in line)
    assert "u'buffer'" in asked


def test_nobody_is_asked_where_nothing_may_be_written(
    server: MosquittoServer, tmp_path: Path
) -> None:
    home = tmp_path / "var"
    node = EdgeNode(BrokerAddress(port=server.port), LINE, "press", ("d",))
    with listening(server.port, "spBv1.0/+/NCMD/#") as heard:
        be_born(node, server.port)
        with capturing(home, plant(server.port, rebirth=False)):
            report(node, lambda: topics(home)[f"spBv1.0/{LINE}/DDATA/press/d"] >= 20, "data")
        node.stop()
    assert (node.births, heard) == (1, [])


def test_nodes_come_and_go_while_the_buffer_runs(server: MosquittoServer, tmp_path: Path) -> None:
    home, with_nodes = tmp_path / "var", plant(server.port)
    without = with_nodes.model_copy(
        update={"lines": (with_nodes.lines[0].model_copy(update={"sparkplug": None}),)}
    )
    remembered = home / "capture" / "subscriptions-mqtt.json"
    birth = f"spBv1.0/{LINE}/NBIRTH/press"
    node = EdgeNode(BrokerAddress(port=server.port), LINE, "press", ("d",))
    with capturing(home, without) as service:
        be_born(node, server.port)
        service.follow(with_nodes)
        report(node, lambda: topics(home)[birth] >= 1, "the birth that was asked for")
        assert f"spBv1.0/{LINE}/DDATA/+/+" in remembered.read_text()
        service.follow(without)
        until(lambda: "spBv1.0" not in remembered.read_text(), "end of the subscription")
    node.stop()


def report(node: EdgeNode, condition: Callable[[], object], what: str) -> None:
    """Lets a node speak until something has happened."""
    deadline, value = time.monotonic() + DEADLINE_S, 20.0
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in time"
        node.serve()
        value += 0.1
        node.report("d", now_ms(), {"Temp": value})
        time.sleep(0.05)


def test_another_writer_s_payloads_are_read_alike(server: MosquittoServer, tmp_path: Path) -> None:
    home, setting = tmp_path / "var", plant(server.port)
    birth = payload(metric(5, datatype=3, name="Speed", alias=1), ts=now_ms(), seq=0)
    with capturing(home, setting):
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        client.publish(f"spBv1.0/{LINE}/NBIRTH/plc", birth, 0).wait_for_publish(DEADLINE_S)
        body = payload(metric(-6, datatype=3, alias=1, send_type=False), ts=now_ms(), seq=1)
        client.publish(f"spBv1.0/{LINE}/NDATA/plc", body, 0).wait_for_publish(DEADLINE_S)
        until(lambda: sum(topics(home).values()) == 2, "arrival")
        client.disconnect()
        client.loop_stop()
    engine = Engine(Home(home), setting)
    engine.run_batch(LINE, run_id="live")
    assert [(r["sensor_name"], r["value"]) for r in rows(engine, schema.SIGNALS)] == [
        ("node/Speed", 5.0),
        ("node/Speed", -6.0),
    ]
    assert json.dumps(engine.ledger.counts(LINE)["rows.signals"]) == "2"
