"""What a broker says of the messages that it drops itself: read beside the capture, never stored.

A connection of its own, with a session that ends with it: whatever the broker thinks of `$SYS`,
a refusal included, the session that captures knows nothing of it.
"""

import contextlib
import logging
from typing import Any, Final, Self

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from iiot_platform.config.broker_client import log_in
from iiot_platform.config.plant import MqttSource
from iiot_platform.config.tls import client_context

logger = logging.getLogger(__name__)

TOPIC: Final = "$SYS/broker/publish/messages/dropped"
_FIRST_PAUSE_S: Final = 5
_LONGEST_PAUSE_S: Final = 300
_CONNECT_TIMEOUT_S: Final = 2.0


class BrokerWatch:
    """Follows the drop counter of one broker; brokers that tell none are left alone.

    Args:
        settings: the broker and how to log in.
    """

    def __init__(self, settings: MqttSource) -> None:
        self.source = settings.name
        self.dropped: int | None = None
        """Messages that the broker has dropped since it was started; None: it does not say."""
        self.refused = ""
        """Why the broker did not let the last connection in."""
        self._settings = settings
        self._client = self._make_client()

    def __enter__(self) -> Self:
        settings = self._settings
        if settings.tls is not None:
            try:
                self._client.tls_set_context(client_context(settings.tls))
            except OSError:  # the source itself tells what is wrong with its files
                return self
        self._client.connect_async(settings.host, settings.port, settings.keepalive_s)
        self._client.loop_start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _make_client(self) -> Client:
        settings = self._settings
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{settings.client_id}-watch",
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        log_in(client, settings)
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.reconnect_delay_set(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        client.on_connect = self._connected
        client.on_message = self._told
        return client

    def _connected(
        self,
        client: Client,
        _data: Any,
        _flags: ConnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if code.is_failure:
            self.refused = code.getName()
            logger.debug("source '%s': no drop counter: %s", self.source, self.refused)
        else:
            self.refused = ""
            client.subscribe(TOPIC)

    def _told(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        with contextlib.suppress(ValueError):  # another broker's idea of it
            self.dropped = int(message.payload)
