"""OPC UA as a source: subscribed for ever, every outage written down.

OPC UA has no acknowledgement that could wait for the disk: what a server has published and the
buffer has not yet committed is gone when the buffer is killed, one commit interval at most. The
next start writes the time between into the log as a gap.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import msgspec
from asyncua import ua

from buffer_service.delivery import Delivery, Event, SourceStatus
from buffer_service.sources.backoff import Backoff
from buffer_service.sources.event_loop import EventLoopThread
from buffer_service.sources.inbox import Inbox
from buffer_service.sources.link_state import LinkState
from buffer_service.sources.opcua_connection import Connection
from buffer_service.sources.opcua_failures import sentence
from buffer_service.sources.opcua_gaps import Edge, Gap, Outages
from buffer_service.sources.opcua_json import canonical, us_of
from buffer_service.sources.opcua_nodes import LineRoute, Refused, Target, flattened
from buffer_service.sources.opcua_pki import Pki
from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.core.capture_log import GAP_TOPIC, Record
from iiot_platform.core.clock import MS_PER_S, now_ms, now_us

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S: Final = 3.0
_PRESSURE_SHARE: Final = 4
_ROOM_S: Final = 0.02
_STEADY_S: Final = 5.0
_HOLE_EVERY_MS: Final = 1_000
_STOP_TIMEOUT_S: Final = 2.0
_FIELDS: Final = {"signal": "SensorValue", "state": "StateValue", "struct": "Value"}
"""What a value that is no structure is called; of a structure only a missing one is none."""
_encode = msgspec.json.Encoder().encode


class OpcUaReceiver:
    """Receives the lines of one server.

    Args:
        settings: the server and its nodes.
        routes: by line, its stream and topics.
        pki: folder of certificates.
        loop: where it runs.
        on_pressure: called when many values wait, so that a commit comes early.
        away_since_ms: when an earlier run of the buffer was last known to receive; None at the
            first.
    """

    def __init__(
        self,
        settings: OpcUaSource,
        *,
        routes: Mapping[str, LineRoute],
        pki: Path,
        loop: EventLoopThread,
        on_pressure: Callable[[], None],
        away_since_ms: int | None = None,
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._pki = Pki(pki)
        self._loop = loop
        self._inbox = Inbox(
            pressure_at=settings.queue_limit // _PRESSURE_SHARE, on_pressure=on_pressure
        )
        self._task: Future[None] | None = None
        self._stopping = False
        self._ended = threading.Event()
        self._backoff = Backoff(cap_s=LONGEST_PAUSE_S)
        self._where = f"source '{settings.name}', {settings.url}"
        self._link = LinkState(self._where)
        self._outages = Outages(away_since_ms, settings.first_history_s)
        self._alive_ms = now_ms()
        self._hole_ms = self._bridged_ms = 0
        self._without = ""
        self._connects = self._gaps = self._holes = self._bad = self._refused = self._kept = 0

    @property
    def name(self) -> str:
        """The source's name in the plant file."""
        return self._settings.name

    @property
    def status(self) -> SourceStatus:
        """The state of the connection, with counts since the start."""
        state, reason, since_ms = self._link.now
        counts = {
            "connects": self._connects,
            "values": self._inbox.taken,
            "not_good": self._bad,
            "gaps": self._gaps,
            "from_history": self._kept,
            "holes": self._holes,
            "refused_nodes": self._refused,
            "waiting": len(self._inbox),
        }
        return SourceStatus(state, reason, since_ms, counts)

    @property
    def works(self) -> bool:
        """True while the task goes on, in a loop that turns."""
        return self._task is not None and not self._task.done() and self._loop.turns()

    def start(self) -> None:
        """Connect, and reconnect for ever."""
        # asyncua tells every failure several times, with tracebacks; ours are told once, below
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
        if self._settings.security == "none" and self._settings.username is not None:
            logger.warning(
                "%s: no security: the password may be sent in clear text; set security: "
                "sign_and_encrypt",
                self._where,
            )
        self._task = self._loop.submit(self._run(), f"opcua-{self.name}")

    def drain(self) -> list[Event]:
        """Everything that has come since the last call, in order."""
        return self._inbox.drain()

    def acknowledge(self, tokens: Sequence[object]) -> None:
        """Make room; the server is not told, it knows no such thing."""
        self._inbox.settle(len(tokens))

    def stop(self) -> None:
        """Disconnect."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            self._ended.wait(_STOP_TIMEOUT_S)
        self._link.set("disconnected", "stopped")

    # told by the connection

    def connected(self, targets: int, refused: Sequence[Refused]) -> None:
        """Values come from now on: a gap ends here."""
        self._connects += 1
        self._refused = len(refused)
        gap = self._outages.end(now_ms())
        if gap is not None:
            self._write_gap(gap)
        self._alive_ms = now_ms()
        reason = self._without = f"without {flattened(refused)}" if refused else ""
        logger.info("%s: connected, %d nodes", self._where, targets)
        if refused:
            logger.error("%s: %d nodes are not captured: %s", self._where, len(refused), reason)
        self._link.set("connected", reason)

    def alive(self) -> None:
        """The server has spoken."""
        self._alive_ms = now_ms()

    def bridged(self, reason: str) -> None:
        """The connection is away, and its session may be taken up again."""
        logger.warning("%s: %s; trying again for ever", self._where, reason)
        self._bridged_ms = self._alive_ms
        self._outages.cut()
        self._link.set("disconnected", reason)

    def resumed(self) -> None:
        """The session was taken up again, and with it what the server has kept."""
        away_s = (now_ms() - self._link.now[2]) / MS_PER_S
        logger.info("%s: back after %.1f s, with what the server has kept", self._where, away_s)
        now = now_ms()
        if now - self._bridged_ms > 1_000 * self._settings.keep_s:
            reason = (
                f"the connection was away for longer than the {self._settings.keep_s:g} s that the "
                "server shall keep"
            )
            self._write_gap(self._outages.lacking(self._bridged_ms, now, reason))
        else:
            self._outages.resumed()
        self._link.set("connected", self._without)

    def complaint(self, reason: str) -> None:
        """Something must be mended though the connection stands."""
        logger.error("%s: %s", self._where, reason)
        self._without = "; ".join(filter(None, (self._without, reason)))
        self._link.set("connected", self._without)

    def hole(self, reason: str) -> None:
        """Values are missing though the connection stands: a gap, at most one a second."""
        self._holes += 1
        now = now_ms()
        if now - self._hole_ms < _HOLE_EVERY_MS:
            return
        logger.error("%s: values were lost: %s", self._where, reason)
        begin, self._hole_ms = self._hole_ms, now
        window = round(2 * self._settings.publishing_interval_ms)
        begin = max(begin, now - window)
        self._write_gap(Gap(begin, now, reason, begin))

    def take(self, target: Target, value: Any, data: ua.DataValue) -> None:
        """A value becomes a record."""
        record = self._record(target, value, data)
        self._outages.note(target.topic, Edge(record.source_ts, hash(record.payload)))
        self._put(target.stream, record)

    def next_gap(self) -> Gap | None:
        """The oldest gap whose history was not read yet."""
        pending = self._outages.pending
        return pending[0] if pending and self._settings.history == "fill" else None

    def take_kept(self, gap: Gap, target: Target, value: Any, data: ua.DataValue) -> bool:
        """A value that the server has kept becomes a record unless it was captured live."""
        record = self._record(target, value, data, kept=True)
        edge = Edge(record.source_ts, hash(record.payload))
        if edge in (gap.before.get(target.topic), gap.after.get(target.topic)):
            return False
        self._kept += 1
        gap.counts[target.stream] = gap.counts.get(target.stream, 0) + 1
        self._put(target.stream, record)
        return True

    def filled(self, gap: Gap, nodes: int) -> None:
        """What the history has of a gap is taken: the log says so too."""
        self._outages.pending.remove(gap)
        logger.info(
            "%s: %d values of %d of %d nodes read from the server's history (%s)",
            self._where,
            sum(gap.counts.values()),
            len(gap.done),
            nodes,
            gap.reason,
        )
        if gap.recorded and gap.done:
            self._write_gap(gap, complete=len(gap.done) == nodes)

    async def room_for_history(self) -> None:
        """Wait while more than a quarter of the room is taken: live values come first."""
        while self._inbox.waiting >= self._settings.queue_limit // _PRESSURE_SHARE:
            self._inbox.press()
            await asyncio.sleep(_ROOM_S)

    def _record(
        self, target: Target, value: Any, data: ua.DataValue, *, kept: bool = False
    ) -> Record:
        code = data.StatusCode.value if data.StatusCode is not None else 0
        if code >> 30:
            self._bad += 1
        if not isinstance(value, dict | ua.ExtensionObject):
            if target.shape == "state" and isinstance(value, float) and value.is_integer():
                value = int(value)  # the plant file says that this number is a state
            value = {_FIELDS[target.shape]: value}
        return Record(
            self.name,
            target.topic,
            canonical(value),
            now_us(),
            us_of(data.SourceTimestamp),
            us_of(data.ServerTimestamp),
            code,
            kept,
        )

    async def room(self) -> None:
        """Wait while too much waits for the disk; the server keeps what it can meanwhile."""
        while self._inbox.waiting >= self._settings.queue_limit:
            self._inbox.press()
            await asyncio.sleep(_ROOM_S)

    def _put(self, stream: str, record: Record) -> None:
        self._inbox.put(Delivery(stream, record, None))

    async def _run(self) -> None:
        try:
            await self._connect_for_ever()
        finally:
            self._ended.set()

    async def _connect_for_ever(self) -> None:
        while not self._stopping:
            connection = Connection(self._settings, self._routes, self._pki, self)
            began = time.monotonic()
            try:
                await connection.run()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                reason = sentence(error, self._settings, str(self._pki.certificate))
                if reason.startswith("unexpected") and not self._link.repeats(reason):
                    logger.exception("%s: unexpected failure", self._where)
                self._disconnected(reason)
            if time.monotonic() - began > _STEADY_S:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next_s())

    def _disconnected(self, reason: str) -> None:
        state, earlier, _ = self._link.now
        first = f"{earlier}; " if state == "disconnected" else ""
        self._outages.begin(self._alive_ms, f"{first}{reason}")
        self._link.failed(reason, self._backoff.attempts)

    def _write_gap(self, gap: Gap, *, complete: bool | None = None) -> None:
        """A gap stands in the log of every line; once more when its history was read."""
        said: dict[str, Any] = {
            "begin_ms": gap.begin_ms,
            "end_ms": gap.end_ms,
            "reason": gap.reason,
        }
        self._gaps += complete is None
        topic = f"{GAP_TOPIC}{self.name}"
        for route in self._routes.values():
            if complete is not None:
                said |= {"filled": gap.counts.get(route.stream, 0), "complete": complete}
            self._put(route.stream, Record(self.name, topic, _encode(said), now_us()))
