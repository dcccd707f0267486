"""Numbered messages: published while things break, counted by what the broker acknowledged."""

import contextlib
import json
import threading
import time
from collections import deque
from typing import Final, Self

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from buffer_service.log import hot
from buffer_service.log.capture import read_only
from buffer_service.log.segment_file import read_table
from iiot_platform.core.paths import Home

_TICK_S: Final = 0.02
_SETTLE_S: Final = 60.0


class Publisher:
    """A device that publishes at QoS 1 and knows which of its messages were acknowledged.

    What was under way when a connection broke is never sent again, so that whatever is twice in
    the log was made so by somebody else; such a message may be there or not.

    Args:
        port: of the broker.
        topic: where it publishes.
        rate_per_s: how fast; may be changed meanwhile.
        window: messages under way at most.
        login: user and password.
        qos: 0 counts as acknowledged what was handed to the network.
        first: number of its first message.
    """

    def __init__(
        self,
        port: int,
        topic: str = "line1/press/temp",
        *,
        rate_per_s: float = 500.0,
        window: int = 2_000,
        login: tuple[str, str] | None = None,
        qos: int = 1,
        first: int = 0,
    ) -> None:
        self.rate_per_s = rate_per_s
        self.acknowledged: set[int] = set()
        self.sent = first
        self._port, self._topic, self._window, self._login = port, topic, window, login
        self._qos = qos
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Publish no more, and wait for what is under way."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                self._connection()
            self._stop.wait(5 * _TICK_S)

    def _connection(self) -> None:
        """One connection, until it breaks or the end."""
        done: deque[int] = deque()
        under_way: dict[int, int] = {}
        client = Client(
            CallbackAPIVersion.VERSION2,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(self._window)
        client.on_publish = lambda _client, _data, mid, *_: done.append(mid)
        if self._login is not None:
            client.username_pw_set(*self._login)
        client.connect("127.0.0.1", self._port)
        client.loop_start()
        try:
            due, at, until = 0.0, time.monotonic(), 0.0
            while True:
                now = time.monotonic()
                due, at = min(due + self.rate_per_s * (now - at), self._window), now
                if client.is_connected():
                    until = now + _SETTLE_S if not self._stop.is_set() or not until else until
                elif until or now - at > _SETTLE_S:
                    break  # it was there, and is gone
                while client.is_connected() and not self._stop.is_set() and due >= 1:
                    if len(under_way) >= self._window:
                        break
                    due -= 1
                    body = json.dumps({"n": self.sent, "at": time.time_ns() // 1_000}).encode()
                    under_way[client.publish(self._topic, body, self._qos).mid] = self.sent
                    self.sent += 1
                while done:
                    number = under_way.pop(done.popleft(), None)
                    if number is not None:
                        self.acknowledged.add(number)
                if self._stop.is_set() and (not under_way or now > until):
                    break
                time.sleep(_TICK_S)
        finally:
            client.disconnect()
            client.loop_stop()


def stored_bodies(home: Home, line: str = "line1", topic: str = "line1/press/temp") -> list[bytes]:
    """The payloads of a topic in the log, sealed or hot, each as often as it is there."""
    with contextlib.closing(read_only(home)) as db:
        paths = db.execute("SELECT path FROM segments WHERE stream = ? ORDER BY lo", (line,))
        tables = [read_table(home.capture / path) for (path,) in paths.fetchall()]
        found = [
            payload
            for table in tables
            for there, payload in zip(
                table.column("topic").to_pylist(), table.column("payload").to_pylist(), strict=True
            )
            if there == topic
        ]
        for stretch in hot.stretches(db, max_rows=100_000, max_bytes=64_000_000):
            if stretch.stream == line:
                found += [record.payload for record in stretch.records if record.topic == topic]
    return found


def stored_numbers(home: Home, line: str = "line1", topic: str = "line1/press/temp") -> list[int]:
    """The numbers of a publisher's messages in the log, each as often as it is there."""
    return [json.loads(body)["n"] for body in stored_bodies(home, line, topic)]
