"""Alerts as retained messages at a broker, one connection at a time."""

import logging
import threading
from typing import Any, Final

from paho.mqtt.reasoncodes import ReasonCode

from iiot_platform.alerts.store import Waiting
from iiot_platform.config.broker_client import BrokerClient
from iiot_platform.config.plant import MqttSource
from iiot_platform.core.errors import SinkError

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S: Final = 10.0


class MqttAnnouncer:
    """Publishes at QoS 1 and returns once the broker has acknowledged.

    Each connection has a client of its own: what was under way on a lost one is published again by
    the outbox, in order, and never by the client behind its back.

    Args:
        source: broker, user and encryption.
        client_id: names the session; not that of the buffer, which it would throw out.
    """

    def __init__(self, source: MqttSource, client_id: str) -> None:
        self._source = source
        self._client_id = client_id
        self._client: BrokerClient | None = None
        self._answered = threading.Event()
        self._refusal = ""
        self._codes: dict[int, ReasonCode] = {}

    def close(self) -> None:
        """Disconnects."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def deliver(self, waiting: Waiting) -> None:
        """Publishes a message; an empty one clears its topic.

        Raises:
            SinkError: the broker can not be reached, refuses, or does not acknowledge.
        """
        client = self._client
        if client is None or not client.is_connected():
            self.close()
            client = self._connect()
        try:
            info = client.publish(waiting.message.topic, waiting.message.body, 1, retain=True)
            info.wait_for_publish(ANSWER_TIMEOUT_S)
        except (RuntimeError, ValueError) as error:
            self.close()
            raise self._error(f"did not take a message: {error}") from error
        if not info.is_published():
            self.close()
            raise self._error(f"has not acknowledged within {ANSWER_TIMEOUT_S:.0f} s")
        code = self._codes.pop(info.mid, None)
        if code is not None and code.is_failure:
            raise self._error(
                f"refuses to publish below '{waiting.message.topic}': {code.getName()};"
                " let the user publish there"
            )

    def _connect(self) -> BrokerClient:
        source = self._source
        client = BrokerClient(source, self._client_id)
        client.on_connect = self._handle_connect
        client.on_publish = self._handle_publish
        self._answered.clear()
        self._refusal = ""
        self._codes.clear()
        try:
            client.connect(source.host, source.port, source.keepalive_s)
        except (OSError, ValueError) as error:
            raise self._error(f"can not be reached: {error}") from error
        client.loop_start()
        self._client = client
        if not self._answered.wait(ANSWER_TIMEOUT_S):
            self.close()
            raise self._error("does not answer")
        if self._refusal:
            self.close()
            raise self._error(f"refuses the connection: {self._refusal}")
        return client

    def _handle_connect(
        self, _client: Any, _data: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        self._refusal = code.getName() if code.is_failure else ""
        self._answered.set()

    def _handle_publish(
        self, _client: Any, _data: Any, mid: int, code: ReasonCode, _properties: Any
    ) -> None:
        if code.is_failure:
            self._codes[mid] = code

    def _error(self, what: str) -> SinkError:
        return SinkError(f"broker {self._source.host}:{self._source.port} {what}")
