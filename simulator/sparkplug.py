"""A machine as a Sparkplug B edge node: births, data by alias and on change, a will, rebirths."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from simulator.broker_link import BrokerAddress
from simulator.errors import SimulatorError
from simulator.plant import Message, SimulatedPlant
from simulator.scenario_file import load_scenario
from simulator.session import RunOptions
from simulator.sparkplug_wire import (
    BOOLEAN,
    UINT64,
    Metric,
    Value,
    asks_for_rebirth,
    datatype_of,
    encoded,
)
from simulator.stats import Stats, now_ms

_log = logging.getLogger(__name__)

_REBIRTH: Final = "Node Control/Rebirth"
_NAMES: Final = frozenset(
    {"LineName", "MachineName", "TimeStamp", "SensorName", "StateName", "ValveName", "DeviceName"}
)
_CHUNK_MS: Final = 1_000
_STEP_S: Final = 0.05
_RETRY_S: Final = 1.0
_DRAIN_S: Final = 2.0


class EdgeNode:
    """One edge node with its devices and its connection; `serve` it again and again.

    Args:
        address: the broker.
        group: the group ID.
        name: the edge node ID.
        devices: the names of its devices.
    """

    def __init__(
        self, address: BrokerAddress, group: str, name: str, devices: tuple[str, ...]
    ) -> None:
        self._address = address
        self._topic = f"spBv1.0/{group}/{{}}/{name}"
        self._devices: dict[str, dict[str, Value]] = {device: {} for device in devices}
        self._alias: dict[tuple[str, str], int] = {}
        self._bd_seq = -1
        self._seq = itertools.cycle(range(256))
        self._client: mqtt.Client | None = None
        self._connected = threading.Event()
        self._lost = threading.Event()
        self._rebirth = threading.Event()
        self._next_try_s = 0.0
        self._is_born = False
        self._known: dict[str, set[str]] = {}
        self.published = 0
        """Messages that were handed to the connection."""
        self.births = 0
        """How often the node was born."""

    def serve(self) -> None:
        """Connect, and be born, where that is due."""
        if self._lost.is_set():
            self._close()
        if self._client is None and time.monotonic() >= self._next_try_s:
            self._connect()
        if self._connected.is_set() and (self._rebirth.is_set() or not self._is_born):
            self._rebirth.clear()
            self._be_born()

    def report(self, device: str, timestamp_ms: int, values: Mapping[str, Value]) -> None:
        """Publish what has changed; a metric that no birth has named begins another birth."""
        last = self._devices[device]
        changed = {name: value for name, value in values.items() if last.get(name) != value}
        last.update(values)
        if not self._is_born or not changed:
            return
        if not changed.keys() <= self._known.get(device, set()):
            self._device_birth(device, timestamp_ms)
            return
        metrics = [
            Metric(value, alias=self._alias[device, name], timestamp_ms=timestamp_ms)
            for name, value in changed.items()
        ]
        self._publish("DDATA", device, metrics, timestamp_ms)

    def stop(self) -> None:
        """Publish the death and disconnect."""
        client = self._client
        if client is not None and self._connected.is_set():
            info = client.publish(self._topic.format("NDEATH"), self._death(), 1)
            info.wait_for_publish(_DRAIN_S)
        self._close()

    def _connect(self) -> None:
        self._bd_seq = (self._bd_seq + 1) % 256
        address = self._address
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        if address.username is not None:
            password = address.password.get_secret_value() if address.password else None
            client.username_pw_set(address.username, password)
        if address.tls_ca is not None:
            client.tls_set(ca_certs=str(address.tls_ca))
        client.will_set(self._topic.format("NDEATH"), self._death(), 1)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        try:
            client.connect(address.host, address.port)
        except OSError as error:
            _log.warning("broker %s can not be reached: %s", address, error)
            self._next_try_s = time.monotonic() + _RETRY_S
            return
        self._client = client
        client.loop_start()

    def _close(self) -> None:
        client, self._client = self._client, None
        self._connected.clear()
        self._lost.clear()
        self._is_born = False
        self._next_try_s = time.monotonic() + _RETRY_S
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _death(self) -> bytes:
        return encoded([Metric(self._bd_seq, name="bdSeq", datatype=UINT64)])

    def _be_born(self) -> None:
        self._seq = itertools.cycle(range(256))
        self._is_born = True
        self.births += 1
        at = now_ms()
        own = [
            Metric(self._bd_seq, name="bdSeq", datatype=UINT64, timestamp_ms=at),
            Metric(value=False, name=_REBIRTH, datatype=BOOLEAN, timestamp_ms=at),
        ]
        self._publish("NBIRTH", "", own, at)
        for device in self._devices:
            self._device_birth(device, at)

    def _device_birth(self, device: str, timestamp_ms: int) -> None:
        values = self._devices[device]
        metrics = [
            Metric(
                value,
                alias=self._alias.setdefault((device, name), len(self._alias) + 1),
                name=name,
                datatype=datatype_of(value),
                timestamp_ms=timestamp_ms,
            )
            for name, value in values.items()
        ]
        self._known[device] = set(values)
        self._publish("DBIRTH", device, metrics, timestamp_ms)

    def _publish(self, kind: str, device: str, metrics: list[Metric], timestamp_ms: int) -> None:
        client = self._client
        if client is None:
            return
        topic = self._topic.format(kind) + (f"/{device}" if device else "")
        body = encoded(metrics, timestamp_ms=timestamp_ms, seq=next(self._seq))
        client.publish(topic, body, 0)
        self.published += 1

    def _on_connect(self, client: mqtt.Client, _: Any, _flags: Any, code: Any, _props: Any) -> None:
        if code.is_failure:
            _log.warning("broker %s refused the connection: %s", self._address, code)
            self._lost.set()
            return
        # before the births: a command may follow at once
        client.subscribe(self._topic.format("NCMD"), 1)

    def _on_subscribe(self, *_: Any) -> None:
        self._connected.set()

    def _on_disconnect(self, *_: Any) -> None:
        self._lost.set()

    def _on_message(self, _client: Any, _: Any, message: mqtt.MQTTMessage) -> None:
        if asks_for_rebirth(bytes(message.payload)):
            self._rebirth.set()


def play(
    options: RunOptions,
    *,
    group: str | None = None,
    stop: threading.Event | None = None,
    on_progress: Callable[[Stats], None] | None = None,
) -> Stats:
    """Play lines of a scenario live: each machine is an edge node, each device one of its devices.

    Args:
        options: scenario, broker, lines and length; history is not played.
        group: the group ID; default the line's name.
        stop: set from elsewhere to stop in order.
        on_progress: called about once a second.

    Raises:
        SimulatorError: the scenario can not be played, or two machines would be one node.
    """
    scenario = load_scenario(options.scenario)
    played = scenario.only(options.lines) if options.lines else scenario
    nodes: dict[tuple[str, str], EdgeNode] = {}
    taken: set[tuple[str, str]] = set()
    for line, machines in played.lines.items():
        for machine, devices in machines.items():
            name = (group or line, machine)
            if name in taken:
                raise SimulatorError(
                    f"two machines would be edge node '{machine}' of group '{name[0]}'; choose one"
                    " line"
                )
            taken.add(name)
            nodes[line, machine] = EdgeNode(options.broker, *name, tuple(devices))
    stopped = stop or threading.Event()
    stats = Stats(source=f"scenario {scenario.name} as Sparkplug", phase="live")
    started_ms = now_ms()
    plant = SimulatedPlant(played, anchor_ms=started_ms)
    try:
        for message in _messages(plant, started_ms):
            while (early_ms := message.due_ms - now_ms()) > 0 and not stopped.is_set():
                _serve(nodes, stats)
                stopped.wait(min(early_ms / 1_000, _STEP_S))
            over = options.seconds is not None and (
                message.due_ms >= started_ms + 1_000 * options.seconds
            )
            if over or stopped.is_set():
                break
            _, machine, device = message.topic.split("/")
            body = msgspec.json.decode(message.payload)
            values = dict(_values(body))
            nodes[message.line, machine].report(device, body["TimeStamp"], values)
            if on_progress is not None and now_ms() - stats.updated_ms >= _CHUNK_MS:
                stats.updated_ms = now_ms()
                on_progress(stats)
    finally:
        for node in nodes.values():
            node.stop()
        _count(nodes, stats)
        stats.phase = "stopped"
    return stats


def _serve(nodes: Mapping[tuple[str, str], EdgeNode], stats: Stats) -> None:
    for node in nodes.values():
        node.serve()
    _count(nodes, stats)


def _count(nodes: Mapping[tuple[str, str], EdgeNode], stats: Stats) -> None:
    stats.published = sum(node.published for node in nodes.values())
    stats.connections = sum(node.births for node in nodes.values())


def _messages(plant: SimulatedPlant, start_ms: int) -> Iterator[Message]:
    while True:
        end_ms = start_ms + _CHUNK_MS
        yield from plant.chunk(start_ms, end_ms).messages
        start_ms = end_ms


def _values(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Value]]:
    """The scalars of a device's object as metrics; what lies deeper has a folder in its name."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _values(value, f"{prefix}{name}/")
        elif name not in _NAMES and isinstance(value, bool | int | float | str):
            yield f"{prefix}{name}", value
