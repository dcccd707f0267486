"""A real OPC UA server in a process of its own, told what to write.

Commands are texts, each is answered by one. The processes are forks of one that has loaded the
standard's 6,000 nodes, which takes longer than most tests.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from datetime import UTC
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Self

import msgspec
from asyncua import Server, ua

from simulator.opcua_history import PlantHistory
from simulator.opcua_security import URI, OneUser, secure
from simulator.opcua_server import NAMESPACE, PlantServer, Trouble
from tests.servers.forks import forks
from tests.servers.ports import free_port

START_TIMEOUT_S = 60.0
SIGNAL, STATE, VALVE, MOTOR = (f"line1/m/{name}" for name in ("signal", "state", "valve", "motor"))
START_MS = 1_795_000_000_000


def payload(topic: str, number: int, start_ms: int = START_MS) -> dict[str, Any]:
    """What the n-th message of a device says."""
    head = {"LineName": "line1", "MachineName": "m"}
    device = topic.rpartition("/")[2]
    body: dict[str, Any]
    if topic == SIGNAL:
        body = {"SensorName": device, "SensorValue": number / 3 + 1}
    elif topic == STATE:
        body = {"StateName": device, "StateValue": number}
    elif topic == VALVE:
        body = {"ValveName": device, "TimeType": "ExtendTime", "TimeValue": number}
    else:
        rows = {f"CurrentL{n}_Harm": [number / 7 + n + k for k in range(42)] for n in (1, 2, 3)}
        values = {"ActPowerTot": number / 9, "PQF": 0.1 + number, **rows, "VoltL1": 230.5}
        body = {
            "DeviceName": device,
            "DeviceState": "Running",
            "SynchPulse": number % 2 == 0,
            "ElectricalData": values,
        }
    return {**head, **body, "TimeStamp": start_ms + 10 * number}


class OpcUaServer:
    """Starts and stops the process; keeps its port and its certificate over a restart."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.port = free_port()
        self.folder = folder
        self.options = options
        self._process: ForkServerProcess | None = None
        self._line: Connection | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.der"

    def start(self, **options: Any) -> None:
        """Start, and wait until it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        given = {"url": self.url, "folder": str(self.folder), **self.options, **options}
        context = forks()
        self._line, its_end = context.Pipe()
        self._process = context.Process(target=_run, args=(given, its_end), daemon=True)
        self._process.start()
        its_end.close()
        # a server that hangs while it starts must not hang the test
        answer = self._line.recv() if self._line.poll(START_TIMEOUT_S) else "nothing"
        assert answer == "listening", answer

    def tell(self, command: str) -> str:
        """Have a command done; returns the answer."""
        self.send(command)
        assert self._line is not None
        return str(self._line.recv())

    def send(self, command: str) -> None:
        assert self._line is not None
        self._line.send(command)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def stop(self) -> None:
        """End without a goodbye."""
        if self._process is None or self._line is None:
            return
        self._process.kill()
        self._process.join()
        self._line.close()
        self._process = self._line = None


def _run(options: dict[str, Any], line: Connection) -> None:
    from tests.servers import opcua_nodes  # noqa: PLC0415 - to load it takes seconds

    opcua_nodes.use_what_is_loaded()
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    asyncio.run(_serve(options, line))


async def _serve(options: dict[str, Any], line: Connection) -> None:
    certificates = Path(options["users"]) if "users" in options else None
    users = OneUser(options.get("username"), options.get("password", ""), certificates)
    server = Server(user_manager=users)
    await server.init()
    server.set_endpoint(options["url"])
    if "session_ms" in options:
        server.iserver.min_session_timeout_ms = options["session_ms"]
        server.iserver.max_session_timeout_ms = options["session_ms"]
    await server.set_application_uri(URI)
    server.set_identity_tokens(users.tokens)
    trusted = Path(options["trusted"]) if "trusted" in options else None
    await secure(server, Path(options["folder"]), only=bool(options.get("only")), trusted=trusted)
    for n in range(options.get("other_namespaces", 0)):
        await server.register_namespace(f"urn:other:{n}")
    history = PlantHistory(options["history_s"], page=50) if "history_s" in options else None
    plant = PlantServer(server, Trouble(), generation=options.get("generation", 0), history=history)
    await plant.fill({topic: payload(topic, 0) for topic in (SIGNAL, STATE, VALVE, MOTOR)})
    async with server:
        line.send("listening")
        loop = asyncio.get_running_loop()
        with contextlib.suppress(EOFError):  # who started it is gone
            while True:
                command = await loop.run_in_executor(None, line.recv)
                line.send(await _obey(server, plant, command.split()))


async def _sessions(server: Server, what: str) -> str:
    """How many there are, or the modes of their channels; they may end, and nobody is told."""
    if what == "sessions":
        return str(len(server.iserver._external_sessions))
    if what == "channels":
        processors = [client.processor for client in server.bserver.clients]
        channels = [one._connection for one in processors if one.session is not None]
        return " ".join(sorted(one.security_policy.Mode.name for one in channels))
    service = server.iserver.subscription_service
    await service.delete_subscriptions(list(service.subscriptions))
    for session in list(server.iserver._external_sessions.values()):
        await session.close_session(delete_subs=True)
    return "done"


async def _obey(server: Server, plant: PlantServer, words: list[str]) -> str:
    match words:
        case ["burst", first, last, interval_ms, *given]:
            due = time.monotonic()
            start_ms = int(given[0]) if given else time.time_ns() // 1_000_000 - 10 * int(first)
            for number in range(int(first), int(last)):
                for topic in (SIGNAL, STATE, VALVE, MOTOR):
                    await plant.write(topic, msgspec.json.encode(payload(topic, number, start_ms)))
                due += float(interval_ms) / 1_000
                await asyncio.sleep(max(due - time.monotonic(), 0))
            return str(start_ms)
        case ["flood", topic, count, at_once]:
            for number in range(int(count)):
                await plant.write(topic, msgspec.json.encode(payload(topic, number + 1)))
                if number % int(at_once) == 0:
                    await asyncio.sleep(0.01)
            return "done"
        case ["extend"]:
            await plant.extend({topic: payload(topic, 0) for topic in (VALVE, MOTOR)})
            return "done"
        case ["sessions" | "channels" | "forget" as what]:
            return await _sessions(server, what)
        case ["null", topic, code]:
            node = server.get_node(f"ns={await server.get_namespace_index(NAMESPACE)};s={topic}")
            status = ua.StatusCode(ua.UInt32(int(code, 0)))
            await server.write_attribute_value(
                node.nodeid,
                ua.DataValue(ua.Variant(None), status, SourceTimestamp=ua.DateTime.now(UTC)),
            )
            return "done"
    return f"unknown command {words}"
