"""Plays a scenario through an OPC UA server: live, with restarts and faults on demand."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from asyncua import Server
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from simulator.errors import SimulatorError
from simulator.opcua_history import PlantHistory, Said
from simulator.opcua_security import URI, OneUser, secure
from simulator.opcua_server import PlantServer, Trouble, samples_of
from simulator.opcua_shutdown import shut_down
from simulator.plant import DueLabel, Message, SimulatedPlant
from simulator.scenario import Scenario
from simulator.scenario_file import DEFAULT_SCENARIO, load_scenario
from simulator.stats import ScenarioState, SimulatorFiles, Stats, now_ms, replace

DEFAULT_URL: Final = "opc.tcp://127.0.0.1:4840"
STATS_FILE: Final = "opcua_stats.json"
_CHUNK_MS: Final = 2_000
_SAMPLE_MS: Final = 60_000
"""Within this every device says something that shows its fields."""
_LOOK_S: Final = 0.05
_LINGER_S: Final = 20.0
"""So long a plant that has ended is served at most until subscribers have all of it."""
_QUIET_S: Final = 0.5
_REPORT_S: Final = 1.0


class OpcUaOptions(BaseModel):
    """How a scenario is played over OPC UA.

    Attributes:
        scenario: a scenario file.
        home: counts, labels and the server's certificate go below `<home>/simulator`.
        url: where the server listens.
        username: the only user that is let in; None: everybody.
        password: the user's.
        secure_only: no endpoint without security.
        trusted: folder with the certificates (DER) of the clients that are accepted; None: all.
        user_certificates: folder with the certificates (DER) of users who are let in.
        seconds: how long; None: until it is stopped.
        lines: the lines that are played; empty: all.
        history_s: how far back the server has a history of its nodes, and for how long it keeps
            one; 0: it has none.
        wait_for_subscriber: the plant says nothing before somebody has subscribed to all of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scenario: Path = DEFAULT_SCENARIO
    home: Path = Path("var")
    url: Annotated[str, Field(pattern=r"^opc\.tcp://[^/@]+$")] = DEFAULT_URL
    username: str | None = None
    password: SecretStr | None = None
    secure_only: bool = False
    trusted: Path | None = None
    user_certificates: Path | None = None
    seconds: Annotated[float, Field(ge=0)] | None = None
    lines: tuple[str, ...] = ()
    history_s: Annotated[float, Field(ge=0)] = 0.0
    wait_for_subscriber: bool = False


def serve_opcua(
    options: OpcUaOptions,
    *,
    stop: Event | None = None,
    on_progress: Callable[[Stats], None] | None = None,
) -> Stats:
    """Serve a scenario until `stop` is set or `options.seconds` are over.

    Raises:
        ScenarioError: the scenario can not be played.
        SimulatorError: the home can not be used, or the port is taken.
    """
    scenario = load_scenario(options.scenario)
    played = scenario.only(options.lines) if options.lines else scenario
    session = _Session(options, scenario, played, stop or Event(), on_progress)
    asyncio.run(session.run())
    return session.stats


class _Session:
    def __init__(
        self,
        options: OpcUaOptions,
        scenario: Scenario,
        played: Scenario,
        stop: Event,
        on_progress: Callable[[Stats], None] | None,
    ) -> None:
        self._options = options
        self._stop = stop
        self._on_progress = on_progress
        self._files = SimulatorFiles(options.home)
        self._started_ms = now_ms()
        known = self._files.read_state().get(scenario.name, ScenarioState(self._started_ms, {}))
        self._plant = SimulatedPlant(played, anchor_ms=known.anchor_ms)
        self._ongoing = True
        self._trouble = Trouble()
        self._history = PlantHistory(options.history_s) if options.history_s else None
        labels = self._files.labels
        self._labelled = set(
            labels.read_bytes().splitlines(keepends=True) if labels.exists() else ()
        )
        self._shown: dict[str, bytes] = {}
        """By topic what its node shows."""
        self.stats = Stats(
            source=f"scenario {scenario.name}, {options.url}", position_ms=self._started_ms
        )

    async def run(self) -> None:
        samples = await samples_of(await asyncio.to_thread(self._past))
        messages: Iterator[Message] | None = None
        generation = 0
        while not self._ended():
            server = await self._server()
            plant = PlantServer(server, self._trouble, generation=generation, history=self._history)
            await plant.fill(samples, self._shown)
            try:
                await server.start()
            except OSError as error:
                raise SimulatorError(
                    f"{self._options.url} can not be served: {error.strerror or error}; choose "
                    "another port"
                ) from error
            try:
                if self._options.wait_for_subscriber:
                    await self._subscribed(server, plant.topics)
                self.stats.phase = "live"
                self.stats.live_since_ms = self.stats.live_since_ms or now_ms()
                messages = messages or self._messages(now_ms())
                await self._play(server, plant, messages)
                if self._ended():
                    await _all_published(server)
            finally:
                await shut_down(server)
            if self._trouble.restart_s is not None:
                generation += self._trouble.extend
                pause_s, self._trouble.restart_s = self._trouble.restart_s, None
                self._trouble.extend = False
                await self._pause(pause_s)
        self.stats.phase = "stopped"
        self._report()

    def _past(self) -> dict[str, bytes]:
        """What was said before the start goes into the history; returns the last of each device."""
        end_ms = self._started_ms
        begin_ms = end_ms - max(round(1_000 * self._options.history_s), _SAMPLE_MS)
        for start_ms in range(begin_ms, end_ms, _SAMPLE_MS):
            chunk = self._plant.chunk(
                start_ms, min(start_ms + _SAMPLE_MS, end_ms), ongoing=start_ms == begin_ms
            )
            for message in chunk.messages:
                self._shown[message.topic] = message.payload
                if self._history is not None:
                    stamp = msgspec.json.decode(message.payload)["TimeStamp"]
                    self._history.add(message.topic, Said(stamp, message.payload))
            if self._history is not None:
                self._ongoing = False
                self._label(chunk.labels)
        lines = Counter(topic.partition("/")[0] for topic in self._shown)
        self.stats.shown_per_line.update(lines)
        return self._shown

    async def _subscribed(self, server: Server, nodes: int) -> None:
        while _monitored(server) < nodes and not self._ended():
            await asyncio.sleep(_LOOK_S)
            self._report()

    async def _server(self) -> Server:
        options = self._options
        password = options.password.get_secret_value() if options.password else ""
        users = OneUser(options.username, password, options.user_certificates)
        server = Server(user_manager=users)
        await server.init()
        server.set_endpoint(options.url)
        parts = urlsplit(options.url)
        server.socket_address = (parts.hostname or "127.0.0.1", parts.port or 4840)
        server.set_server_name("IIoT simulator")
        await server.set_application_uri(URI)
        server.set_identity_tokens(users.tokens)
        await secure(
            server,
            self._files.folder / "pki",
            only=options.secure_only,
            trusted=options.trusted,
        )
        return server

    async def _play(self, server: Server, plant: PlantServer, messages: Iterator[Message]) -> None:
        """Until it ends or a restart is asked for; what is due while away is never said."""
        reported = 0.0
        before = self.stats.published
        for message in messages:
            while (early_s := (message.due_ms - now_ms()) / 1_000) > 0:
                if self._asked_to_leave():
                    return
                await asyncio.sleep(min(early_s, _LOOK_S))
            # a plant that is behind never waits, but must serve and listen all the same
            await asyncio.sleep(0)
            if self._asked_to_leave():
                return
            if early_s < -1 and self.stats.published == before:
                self.stats.skipped += 1
                continue
            changed = await plant.write(message.topic, message.payload)
            self._shown[message.topic] = message.payload
            stats = self.stats
            stats.published += 1
            stats.live += 1
            stats.enqueued += 1
            stats.position_ms = message.due_ms
            per_line = stats.published_per_line
            per_line[message.line] = per_line.get(message.line, 0) + 1
            if changed:
                shown = stats.shown_per_line
                shown[message.line] = shown.get(message.line, 0) + 1
            if time.monotonic() - reported >= _REPORT_S:
                reported = time.monotonic()
                stats.subscribers = len(server.iserver.subscription_service.subscriptions)
                self._report()

    def _messages(self, start_ms: int) -> Iterator[Message]:
        """The plant from now on, for ever; labels go to their file as their faults begin."""
        while True:
            chunk = self._plant.chunk(start_ms, start_ms + _CHUNK_MS, ongoing=self._ongoing)
            self._ongoing = False
            start_ms += _CHUNK_MS
            self._label(chunk.labels)
            yield from chunk.messages

    def _label(self, due: list[DueLabel]) -> None:
        with self._files.labels.open("ab", buffering=0) as labels:
            for one in due:
                line = one.label.encoded()
                if line not in self._labelled:  # a history begins before an earlier run's end
                    labels.write(line)
                self.stats.labels += 1

    async def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._ended():  # noqa: ASYNC110 - a thread's event
            await asyncio.sleep(_LOOK_S)

    def _asked_to_leave(self) -> bool:
        return self._trouble.restart_s is not None or self._ended()

    def _ended(self) -> bool:
        seconds = self._options.seconds
        over = seconds is not None and now_ms() >= self._started_ms + 1_000 * seconds
        return over or self._stop.is_set()

    def _report(self) -> None:
        stats = self.stats
        stats.updated_ms = now_ms()
        lasted_s = max((stats.updated_ms - stats.started_ms) / 1_000, 0.001)
        stats.rate_per_s = round(stats.published / lasted_s, 1)
        replace(self._files.folder / STATS_FILE, stats.encoded())
        if self._on_progress is not None:
            self._on_progress(stats)


async def _all_published(server: Server) -> None:
    """Returns once subscribers have acknowledged what was written, or do not listen for long."""
    deadline = time.monotonic() + _LINGER_S
    quiet_since = time.monotonic()
    while (now := time.monotonic()) < deadline and now - quiet_since < _QUIET_S:
        subscriptions = server.iserver.subscription_service.subscriptions.values()
        if any(one._triggered_datachanges for one in subscriptions):  # noqa: SLF001 - said nowhere else
            quiet_since = now
        await asyncio.sleep(_LOOK_S)


def _monitored(server: Server) -> int:
    subscriptions = server.iserver.subscription_service.subscriptions.values()
    counts = (len(one.monitored_item_srv._monitored_items) for one in subscriptions)  # noqa: SLF001 - asyncua says it nowhere else
    return max(counts, default=0)
