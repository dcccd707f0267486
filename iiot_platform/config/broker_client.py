"""paho's client for a broker of the plant file; for those who know no other configuration."""

import socket

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from iiot_platform.config.plant import MqttSource
from iiot_platform.config.tls import client_context

CONNECT_TIMEOUT_S = 5.0


class BrokerClient(Client):
    """One connection of MQTT 5, logged in and encrypted as the plant file says; never a second.

    It leaves no socket open where the handshake fails, as paho's own does.

    Args:
        source: broker, user and encryption.
        client_id: names the session.
    """

    def __init__(self, source: MqttSource, client_id: str) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        self._source = source
        log_in(self, source)

    def _create_socket(self) -> socket.socket:
        source = self._source
        plain = socket.create_connection((source.host, source.port), CONNECT_TIMEOUT_S)
        try:
            plain.settimeout(self.keepalive)
            if source.tls is None:
                return plain
            return client_context(source.tls).wrap_socket(plain, server_hostname=source.host)
        except BaseException:
            plain.close()
            raise


def log_in(client: Client, source: MqttSource) -> None:
    """Gives a client the user and password of a broker, where it has some."""
    if source.username is not None:
        password = source.password
        client.username_pw_set(
            source.username, None if password is None else password.get_secret_value()
        )
