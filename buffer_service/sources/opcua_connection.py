"""One connection to an OPC UA server: from connecting to the moment that it is lost for good.

A short cut is bridged by asyncua: the session and its subscription are taken up again, and what
the server kept meanwhile comes after. Where the server has ended or has forgotten them, the
connection ends and the next one starts from nothing: node ids, types and subscription may all
be new.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from asyncua import Client, ua
from asyncua.client.ua_client import UaClientState
from asyncua.common.utils import ServiceError

from buffer_service.sources.opcua_history import HistoryReader, Taker
from buffer_service.sources.opcua_monitoring import MonitoredNodes
from buffer_service.sources.opcua_nodes import LineRoute, Refused, Target, flattened, resolve
from buffer_service.sources.opcua_pki import Pki
from buffer_service.sources.opcua_polling import poll
from buffer_service.sources.opcua_security import secure
from buffer_service.sources.opcua_types import DataTypes
from buffer_service.sources.opcua_values import ValueDecoder
from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.core.errors import SourceError

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S: Final = 5.0
SETUP_TIMEOUT_S: Final = 60.0
BRIDGE_S: Final = 20.0
"""How long a cut may last that the same session is taken up after."""
_SILENT_BEATS: Final = 4
_OURSELVES_S: Final = 1.0
_SESSION_S: Final = 60.0
"""How long the server keeps the session of a client that is gone; it allows only a few."""
_PROBE_S: Final = 2.0
_LOOK_S: Final = 0.1
_KNOCK_S: Final = 0.5
_CLOSE_TIMEOUT_S: Final = 1.0
_SCALARS: Final = frozenset({float, int, bool, str, type(None)})
_MISSING_EVERY_S: Final = 60.0
_AWAY: Final = "the connection is away"
_OVERFLOW_BITS: Final = 0x0480
"""InfoType DataValue with the overflow bit: the server's queue was too short."""
_NODE_GONE: Final = frozenset(
    {int(ua.StatusCodes.BadNodeIdUnknown), int(ua.StatusCodes.BadNodeIdInvalid)}
)


class Receiver(Taker, Protocol):
    """What a connection tells, all in the thread of the event loop."""

    def connected(self, targets: int, refused: Sequence[Refused]) -> None:
        """Values come from now on."""

    def alive(self) -> None:
        """The server has spoken."""

    def bridged(self, reason: str) -> None:
        """The connection is away, and its session may be taken up again."""

    def resumed(self) -> None:
        """The session was taken up again, and with it what the server has kept."""

    def hole(self, reason: str) -> None:
        """Values are missing though the connection stands."""

    def complaint(self, reason: str) -> None:
        """Something must be mended though the connection stands."""

    def take(self, target: Target, value: Any, data: ua.DataValue) -> None:
        """A value, structures decoded."""

    async def room(self) -> None:
        """Returns once further values may come."""


class LostError(SourceError):
    """The connection is lost for good."""


class Connection:
    """Connects once, and hands over values until it is lost.

    Args:
        settings: the server.
        routes: streams and topics by line.
        pki: our certificate, and the servers'.
        receiver: whom to tell.
    """

    def __init__(
        self,
        settings: OpcUaSource,
        routes: Mapping[str, LineRoute],
        pki: Pki,
        receiver: Receiver,
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._pki = pki
        self._receiver = receiver
        self._client = Client(
            settings.url,
            timeout=REQUEST_TIMEOUT_S,
            watchdog_intervall=_PROBE_S,
            auto_reconnect=True,
            reconnect_max_delay=_PROBE_S,
            reconnect_request_timeout=REQUEST_TIMEOUT_S,
        )
        self._client.session_timeout = round(1_000 * _SESSION_S)
        self._types = DataTypes(self._client)
        self._values = ValueDecoder(self._types, settings.name)
        self._targets: list[Target] = []
        self._lost = ""
        self._certificate = b""
        self._monitored = MonitoredNodes(self._client, settings)
        self._missing = False

    async def run(self) -> None:
        """Connect, subscribe, and return by raising.

        Raises:
            SourceError: lost, or never had; others of asyncua and OSError likewise.
        """
        filling: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(SETUP_TIMEOUT_S):
                identity = await asyncio.to_thread(self._pki.identity)
                self._certificate = await secure(self._client, self._settings, self._pki, identity)
                await self._client.connect()
                await self._set_up()
            history = HistoryReader(self._client, self._settings, self._values, self._receiver)
            filling = asyncio.create_task(history.run(self._targets), name="opcua-history")
            if self._settings.mode == "poll":
                await poll(self._client, self._settings, self._targets, self._read)
            else:
                await self._watch()
        except ServiceError as error:
            raise ua.UaStatusCodeError(error.code) from error  # type: ignore[no-untyped-call]  # theirs
        finally:
            if filling is not None:
                filling.cancel()
                await asyncio.gather(filling, return_exceptions=True)
            await self._close()

    async def _set_up(self) -> None:
        self._targets, refused = await resolve(
            self._client, self._settings, self._routes, self._types
        )
        await self._types.load_for({target.data_type for target in self._targets})
        if not self._targets:
            raise SourceError(f"none of the nodes can be captured: {flattened(refused)}")
        if self._settings.mode == "subscribe":
            await self._monitored.open(self._published, self._lose)
            refused += await self._monitored.add(self._targets)
            if not self._monitored.topics:
                raise SourceError(
                    f"no node can be subscribed: {flattened(refused)}; use mode: poll"
                )
        self._missing = bool(refused)
        self._receiver.connected(len(self._targets), refused)

    async def _monitor_missing(self) -> None:
        """Nodes that were not there may have come with the program that has them."""
        found, _ = await resolve(self._client, self._settings, self._routes, self._types)
        new = [target for target in found if target.topic not in self._monitored.topics]
        if new:
            await self._types.load_for({target.data_type for target in new})
            first = len(self._targets)
            self._targets += new
            await self._monitored.add(new, first)
        come = sorted({target.topic for target in new} & self._monitored.topics)
        if come:
            logger.info(
                "source '%s': captured from now on: %s", self._settings.name, ", ".join(come[:5])
            )

    async def _watch(self) -> None:
        """Until the connection is lost; a cut is bridged for some time."""
        away_since: float | None = None
        back_at = 0.0
        looked_at = time.monotonic()
        turned_at = looked_at
        while not self._lost:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            if now - turned_at > _OURSELVES_S:
                back_at = now  # we were stopped: the silence may be ours
            turned_at = now
            self._see_to_certificate()
            if self._client.state is not UaClientState.CONNECTED:
                back_at = 0.0
                if away_since is None:
                    away_since = now
                    self._receiver.bridged(_AWAY)
                elif now - away_since > BRIDGE_S:
                    raise LostError(_AWAY)
                await self._knock()
                continue
            spoken_at = self._monitored.spoken_at
            if away_since is not None:
                back_at = back_at or now
                if spoken_at > back_at:
                    away_since = None
                    self._receiver.resumed()
            beat_s = self._monitored.beat_s
            if now - max(spoken_at, back_at) > _SILENT_BEATS * beat_s:
                raise LostError(
                    f"the subscription is silent for {_SILENT_BEATS * beat_s:g} s, though it "
                    f"should speak every {beat_s:g} s"
                )
            if self._missing and away_since is None and now - looked_at > _MISSING_EVERY_S:
                looked_at = now
                await self._monitor_missing()
        raise LostError(self._lost)

    def _see_to_certificate(self) -> None:
        """Say it when the server's certificate expires; the connection stands all the same."""
        if expired := self._pki.expired(self._certificate):
            self._certificate = b""
            self._receiver.complaint(f"{expired}; the next connection will be refused")

    async def _knock(self) -> None:
        """See whether anything listens: a server that has ended has ended our session too.

        Raises:
            ConnectionRefusedError: nothing listens, so that there is nothing to bridge.
        """
        address = urlsplit(self._settings.url)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KNOCK_S):
                try:
                    _, writer = await asyncio.open_connection(address.hostname, address.port)
                except ConnectionRefusedError:
                    raise
                except OSError:
                    return
                writer.close()
            await asyncio.sleep(_KNOCK_S)

    async def _published(self, message: ua.NotificationMessage, expected: int) -> None:
        """The values of one publication; further ones come when this returns."""
        self._receiver.alive()
        if message.NotificationData and message.SequenceNumber != expected > 0:
            self._receiver.hole(
                f"publications {expected} to {message.SequenceNumber - 1} did not come"
            )
        for part in message.NotificationData or ():
            if isinstance(part, ua.DataChangeNotification):
                for item in part.MonitoredItems:
                    await self._hand_over(item.ClientHandle, item.Value)
            elif isinstance(part, ua.StatusChangeNotification):
                self._lose(f"the server ends the subscription: {part.Status.name}")
        await self._receiver.room()

    async def _read(self, changed: Sequence[tuple[int, ua.DataValue]], *, last: bool) -> None:
        """What a poll has found changed, in parts."""
        for handle, value in changed:
            await self._hand_over(handle, value)
        if last:
            self._receiver.alive()
            await self._receiver.room()

    async def _hand_over(self, handle: int, data: ua.DataValue) -> None:
        target = self._targets[handle]
        value = data.Value.Value if data.Value is not None else None
        code = data.StatusCode.value if data.StatusCode is not None else 0
        if type(value) not in _SCALARS:
            value = await self._values.decode(value)
        if code & _OVERFLOW_BITS == _OVERFLOW_BITS:
            self._receiver.hole(f"the server's queue of {target.topic} was too short")
        self._receiver.take(target, value, data)
        if code in _NODE_GONE:
            self._lose(f"the server does not know the node of {target.topic} any more")

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or reason

    async def _close(self) -> None:
        """Say goodbye as far as the server listens; the socket closes in any case."""
        client = self._client
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await client.disconnect()
        client.disconnect_socket()
