"""Asks Sparkplug edge nodes for their births where they are missing; never on the way of a message.

Births are published once and not retained. Whoever comes later, or has lost some messages, asks
with the command `Node Control/Rebirth`. Nothing of it is remembered over a restart or a lost
connection: the first data of each node are then a reason to ask.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from paho.mqtt.reasoncodes import ReasonCode

from buffer_service.sources.node_watch import NodeWatch
from iiot_platform.config.broker_client import BrokerClient
from iiot_platform.config.plant import MqttSource
from iiot_platform.config.sparkplug import ANY, SparkplugNodes
from iiot_platform.core import sparkplug
from iiot_platform.core.clock import now_ms
from iiot_platform.core.errors import DecodeError, SourceError
from iiot_platform.core.sparkplug import topic_of

logger = logging.getLogger(__name__)

FIRST_S: Final = 60.0
LONGEST_S: Final = 3_600.0
REORDER_S: Final = 2.0
"""How long a message may be overtaken by others: brokers keep the order of each topic alone."""
_WAITING: Final = 10_000
_NODES: Final = 10_000
_TURN_S: Final = 1.0
_ANSWER_S: Final = 5.0
_UNANSWERED: Final = 3
_STOP_S: Final = 2.0

Ask = Callable[[str, bytes], None]


class _Asked:
    """When a node may be asked: at most once a minute, and ever more seldom in vain."""

    def __init__(self, first_s: float) -> None:
        self._first_s = first_s
        self._wait_s = first_s
        self._next_at = 0.0
        self.reason: str | None = None
        """Why it is to be asked; None: it need not."""
        self.times = 0
        """How often it was asked since its last birth."""
        self.holes_since_s: float | None = None
        """Since when messages are missing; None: none is."""

    def is_due(self, now_s: float) -> bool:
        return self.reason is not None and now_s >= self._next_at

    def note(self, now_s: float) -> None:
        quiet_s = now_s - self._next_at
        self._wait_s = self._first_s if quiet_s > self._wait_s else self._wait_s
        self._next_at = now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_S)
        self.times += 1


class _Node(NamedTuple):
    watch: NodeWatch
    asked: _Asked


class RebirthCompanion:
    """Looks at what a source hands over, in a thread of its own, and asks for what is missing.

    Args:
        settings: the broker; the connection that asks is another than the one that listens.
        nodes: edge nodes that may be asked.
        ask: publishes a command; default over a connection of its own.
        first_s: how long a node is left alone after it was asked for the first time.
        reorder_s: how long missing messages may still come.
    """

    def __init__(
        self,
        settings: MqttSource,
        nodes: Sequence[SparkplugNodes],
        *,
        ask: Ask | None = None,
        first_s: float = FIRST_S,
        reorder_s: float = REORDER_S,
    ) -> None:
        self._settings = settings
        self._reorder_s = reorder_s
        self._wanted = tuple(nodes)
        self._ask = ask or _OneShot(settings)
        self._first_s = first_s
        self._queue: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self._forget = threading.Event()
        self._skipped = False
        self._nodes: dict[str, _Node] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"rebirth-{settings.name}", daemon=True
        )
        self._told = ""
        self._turn_at = 0.0
        self.requests = 0
        """Commands that were published since the start."""

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ask nobody any more."""
        self._stopping.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def follow(self, nodes: Sequence[SparkplugNodes]) -> None:
        """These may be asked from now on."""
        self._wanted = tuple(nodes)

    def forget(self) -> None:
        """The connection is another: births may have been missed."""
        self._forget.set()

    def observe(self, topic: str, payload: bytes) -> None:
        """A message has come; never waits, and takes no more than there is room for."""
        if not self._wanted:
            return
        if self._queue.qsize() >= _WAITING:
            self._skipped = True
            return
        self._queue.put((topic, payload))

    def _run(self) -> None:
        while not self._stopping.is_set():
            message = None
            with contextlib.suppress(queue.Empty):
                message = self._queue.get(timeout=_TURN_S if self._nodes else None)
            try:
                self._turn(message)
            except Exception:  # the thread's boundary: it goes on
                logger.exception("source '%s': looking for births failed", self._settings.name)

    def _turn(self, message: tuple[str, bytes] | None) -> None:
        if self._forget.is_set():
            self._forget.clear()
            for node in self._nodes.values():
                node.watch.forget()
        if self._skipped:
            self._skipped = False
            for node in self._nodes.values():
                node.watch.skip()
        now_s = time.monotonic()
        if message is not None:
            self._look(*message, now_s)
        if now_s >= self._turn_at:
            self._turn_at = now_s + _TURN_S
            for name, node in self._nodes.items():
                self._count_holes(name, node, now_s)
                self._request_if_due(name, node.asked, now_s)

    def _look(self, text: str, body: bytes, now_s: float) -> None:
        topic = topic_of(text)
        nodes = None if topic is None else next((n for n in self._wanted if n.takes(topic)), None)
        if topic is None or nodes is None:
            return
        node = self._nodes.get(topic.node)
        if node is None:
            if len(self._nodes) >= _NODES:
                return
            watch = NodeWatch(counted=nodes.device == ANY)
            node = self._nodes[topic.node] = _Node(watch, _Asked(self._first_s))
        try:
            payload = sparkplug.decode(body)
        except DecodeError:
            return
        trouble = node.watch.trouble(topic, payload)
        if topic.type in {"NBIRTH", "NDEATH"}:
            node.asked.reason, node.asked.times = None, 0
        elif trouble is not None:
            node.asked.reason = trouble
            self._request_if_due(topic.node, node.asked, now_s)

    def _count_holes(self, name: str, node: _Node, now_s: float) -> None:
        missing, asked = node.watch.missing, node.asked
        if not missing:
            asked.holes_since_s = None
        elif asked.holes_since_s is None:
            asked.holes_since_s = now_s
        elif now_s - asked.holes_since_s >= self._reorder_s:
            asked.reason = f"{len(missing)} messages of '{name}' are missing by their 'seq'"

    def _request_if_due(self, name: str, asked: _Asked, now_s: float) -> None:
        if not asked.is_due(now_s) or self._stopping.is_set():
            return
        group, _, edge_node = name.partition("/")
        reason, times = asked.reason, asked.times
        asked.note(now_s)
        topic = sparkplug.rebirth_topic(group, edge_node)
        where = f"source '{self._settings.name}'"
        try:
            self._ask(topic, sparkplug.rebirth_command(now_ms()))
        except SourceError as error:
            if str(error) != self._told:
                logger.warning("%s: can not ask for births: %s", where, error)
            self._told = str(error)
            return
        self._told = ""
        self.requests += 1
        if times == 0:
            logger.info("%s: asking '%s' for its births: %s", where, name, reason)
        elif times == _UNANSWERED:
            logger.warning(
                "%s: '%s' was asked %d times for its births and sent none; may user '%s' publish"
                " to '%s'? 'rebirth: false' of the line asks no more",
                where,
                name,
                times,
                self._settings.username or "",
                topic,
            )


class _OneShot:
    """Publishes over a connection that lasts for one message."""

    def __init__(self, settings: MqttSource) -> None:
        self._settings = settings

    def __call__(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 0, as commands are.

        Raises:
            SourceError: the broker can not be reached or refuses.
        """
        settings = self._settings
        answers: queue.SimpleQueue[ReasonCode] = queue.SimpleQueue()

        def connected(_client: Any, _data: Any, _flags: Any, code: ReasonCode, _: Any) -> None:
            answers.put(code)

        client = BrokerClient(settings, f"{settings.client_id}-rebirth")
        client.on_connect = connected
        try:
            client.connect(settings.host, settings.port, settings.keepalive_s)
            client.loop_start()
            code = answers.get(timeout=_ANSWER_S)
            if code.is_failure:
                raise SourceError(f"{settings.host}:{settings.port} refuses: {code.getName()}")
            client.publish(topic, payload, 0).wait_for_publish(_ANSWER_S)
        except queue.Empty as error:
            raise SourceError(f"{settings.host}:{settings.port} does not answer") from error
        except (OSError, ValueError, RuntimeError) as error:
            raise SourceError(f"{settings.host}:{settings.port}: {error}") from error
        finally:
            client.disconnect()
            client.loop_stop()
