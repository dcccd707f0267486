"""One connection to a broker: at least once, bounded, reconnecting for ever.

A message counts as published when the broker has acknowledged it; what is not acknowledged when
a connection breaks is sent again on the next. One thread drives the socket: at this rate a second
thread would only fight for the interpreter.
"""

import itertools
import logging
import select
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from simulator.errors import BrokerRefusedError, SimulatorError

_log = logging.getLogger(__name__)

T = TypeVar("T")

QOS: Final = 1
MAX_IN_FLIGHT: Final = 500
_MISC_INTERVAL_S: Final = 0.5
_CONNECT_TIMEOUT_S: Final = 5.0
_RETRY_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_CREDENTIALS_REFUSED: Final = frozenset({"Bad user name or password", "Not authorized", "Banned"})


class BrokerAddress(BaseModel):
    """Where the broker is, and how to be let in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=1883, ge=1, le=65_535)
    username: str | None = None
    password: SecretStr | None = None
    tls_ca: Path | None = None
    client_id: str = ""
    """Empty: the broker gives one."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class BrokerLink(Generic[T]):
    """A publisher's connection; `T` is what the caller remembers of a message until it is acked.

    Args:
        address: the broker.
        acknowledged: called with what was remembered, and whether the broker took the message.
    """

    def __init__(self, address: BrokerAddress, acknowledged: Callable[[T, bool], None]) -> None:
        self._address = address
        self._acknowledged = acknowledged
        self._outstanding: dict[int, T] = {}
        self._window = 1
        self._refused: BrokerRefusedError | None = None
        self._ever_connected = False
        self._opened = False
        self._next_attempt_s = 0.0
        self._next_misc_s = 0.0
        self._retry_s = iter(_RETRY_S)
        self.connected = False
        self.connections = 0
        self._client = self._new_client()

    @property
    def ready(self) -> bool:
        """True where one more message may be sent."""
        return self.connected and len(self._outstanding) < self._window

    @property
    def outstanding(self) -> int:
        """Messages that were sent and are not acknowledged."""
        return len(self._outstanding)

    @property
    def oldest_outstanding(self) -> T | None:
        """What was remembered of the first message that is not acknowledged."""
        return next(iter(self._outstanding.values()), None)

    def send(self, topic: str, payload: bytes, remembered: T) -> None:
        """Hand over one message; only while `ready`.

        Raises:
            SimulatorError: the window is full or the topic can not be published to.
        """
        try:
            info = self._client.publish(topic, payload, QOS)
        except ValueError as error:
            raise SimulatorError(f"'{topic}' can not be published to: {error}") from error
        if info.rc not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN}:
            raise SimulatorError(f"'{topic}' was not taken: {mqtt.error_string(info.rc)}")
        self._outstanding[info.mid] = remembered

    def step(self, timeout_s: float) -> None:
        """Send, receive and reconnect as far as possible, waiting at most about `timeout_s`.

        Raises:
            BrokerRefusedError: the broker never let us in and refuses the credentials.
        """
        if self._refused is not None:
            raise self._refused
        sock = self._client.socket() if self._opened else None
        if sock is None:
            self._reconnect(timeout_s)
            return
        writing = [sock] if self._client.want_write() else []
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        try:
            readable, writable, _ = select.select(
                [sock], writing, [], 0 if pending else max(timeout_s, 0)
            )
        except (OSError, ValueError):
            # the socket was closed under us: the next step reconnects
            readable, writable = [sock], []
        if writable:
            self._client.loop_write()
        if (readable or pending) and self._client.socket() is sock:
            self._client.loop_read()
        now_s = time.monotonic()
        if now_s >= self._next_misc_s:
            self._next_misc_s = now_s + _MISC_INTERVAL_S
            self._client.loop_misc()

    def close(self) -> None:
        """Say goodbye; what is not acknowledged stays so."""
        self.connected = False
        if self._client.socket() is not None:
            self._client.disconnect()
            self._client.loop_write()

    def _new_client(self) -> mqtt.Client:
        address = self._address
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=address.client_id, protocol=mqtt.MQTTv5
        )
        # 0: paho keeps no queue and no window of its own; ours is `ready`
        client.max_inflight_messages_set(0)
        client.connect_timeout = _CONNECT_TIMEOUT_S
        if address.username is not None:
            password = address.password.get_secret_value() if address.password else None
            client.username_pw_set(address.username, password)
        if address.tls_ca is not None:
            try:
                client.tls_set(ca_certs=str(address.tls_ca))
            except OSError as error:
                raise SimulatorError(f"{address.tls_ca}: no usable CA file: {error}") from error
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        # having it tells paho that we drive the socket, so that writes go out in batches
        client.on_socket_register_write = _nothing
        return client

    def _reconnect(self, timeout_s: float) -> None:
        wait_s = self._next_attempt_s - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, max(timeout_s, 0)))
            return
        delay_s = next(self._retry_s, _RETRY_S[-1])
        self._next_attempt_s = time.monotonic() + delay_s
        try:
            self._client.connect(self._address.host, self._address.port)
            self._opened = True
        except OSError as error:
            _log.warning(
                "broker %s can not be reached: %s; next try in %g s", self._address, error, delay_s
            )

    def _on_connect(
        self, _client: mqtt.Client, _: Any, _flags: Any, code: ReasonCode, props: Properties | None
    ) -> None:
        if code.is_failure:
            if not self._ever_connected and str(code) in _CREDENTIALS_REFUSED:
                self._refused = BrokerRefusedError(str(self._address), str(code))
            _log.warning("broker %s refused the connection: %s", self._address, code)
            return
        maximum = getattr(props, "ReceiveMaximum", MAX_IN_FLIGHT)
        self._window = min(MAX_IN_FLIGHT, maximum)
        self._retry_s = iter(_RETRY_S)
        self.connected = self._ever_connected = True
        self.connections += 1

    def _on_disconnect(
        self, _client: mqtt.Client, _: Any, _flags: Any, code: ReasonCode, _props: Any
    ) -> None:
        self._opened = False
        if self.connected:
            _log.warning("connection to broker %s ended: %s", self._address, code)
        self.connected = False

    def _on_publish(
        self, _client: mqtt.Client, _: Any, mid: int, code: ReasonCode, _props: Any
    ) -> None:
        remembered = self._outstanding.pop(mid, None)
        if remembered is not None:
            self._acknowledged(remembered, not code.is_failure)


def _nothing(*_: Any) -> None:
    """Stand-in for an event loop's registration: `step` asks `want_write` instead."""


def read_password(path: Path) -> SecretStr:
    """The first line of a password file.

    Raises:
        SimulatorError: it can not be read or is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SimulatorError(f"password file {path} can not be read: {error}") from error
    first = next(itertools.chain(lines, [""]))
    if not first:
        raise SimulatorError(f"password file {path} is empty; its first line is the password")
    return SecretStr(first)
