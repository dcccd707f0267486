import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncua import Client

from buffer_service.service import CaptureService
from buffer_service.sources.opcua_pki import Pki
from buffer_service.sources.opcua_security import secure
from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.config.plant import Plant
from iiot_platform.core.paths import Home
from simulator.opcua_server import NAMESPACE
from tests.servers.capture_reader import sealed_records
from tests.servers.ports import free_port

DEADLINE_S = 60.0
LINE = "line2"


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


async def called(url: str, method: str, *arguments: Any) -> None:
    async with Client(url) as client:
        await _call(client, method, *arguments)


async def called_securely(source: OpcUaSource, pki: Pki, method: str, *arguments: Any) -> None:
    client = Client(source.url)
    await secure(client, source, pki, pki.identity())
    async with client:
        await _call(client, method, *arguments)


async def _call(client: Client, method: str, *arguments: Any) -> None:
    folder = await client.nodes.objects.get_child(
        f"{await client.get_namespace_index(NAMESPACE)}:Simulator"
    )
    await folder.call_method(f"{folder.nodeid.NamespaceIndex}:{method}", *arguments)


def test_a_line_is_played_over_opc_ua_with_restarts_and_faults(tmp_path: Path) -> None:
    url = f"opc.tcp://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "simulator", "opcua", "--json", "--home", str(tmp_path)]
    simulator = subprocess.Popen(
        [*command, "--lines", LINE, "--url", url], stdout=subprocess.PIPE, text=True
    )
    plant = Plant.model_validate(
        {
            "sources": [
                {
                    "kind": "opcua",
                    "name": "plc",
                    "url": url,
                    "security": "sign_and_encrypt",
                    "sampling_interval_ms": 10,
                    # a value that stays bad is new in its time alone
                    "report": "sample",
                    "nodes": [
                        {"path": f"Plant/{LINE}/*/*_state", "kind": "state"},
                        {"path": f"Plant/{LINE}/*/*"},
                    ],
                }
            ],
            "lines": [LINE],
        }
    )
    try:
        with CaptureService(Home(tmp_path), plant) as service:

            def statistics() -> tuple[int, int]:
                found = service.statistics()
                return found["sources"]["plc"]["connects"], found["lines"][LINE]["captured"]

            until(lambda: statistics()[0] >= 1, "connected")
            until(lambda: statistics()[1] > 60, "values")
            asyncio.run(called(url, "Fault", f"{LINE}/oven/exhaust_flow", 0x8000_0000, 60.0))
            until(lambda: service.statistics()["sources"]["plc"]["not_good"] > 10, "bad values")
            connects = statistics()[0]
            asyncio.run(called(url, "Extend", 0.5))
            until(lambda: statistics()[0] > connects, "connected again")
            captured = statistics()[1]
            until(lambda: statistics()[1] > captured + 40, "values after the restart")
    finally:
        simulator.send_signal(signal.SIGTERM)
        told, _ = simulator.communicate(timeout=DEADLINE_S)
    counts = json.loads(told)
    records = sealed_records(Home(tmp_path), LINE)
    devices = {record.topic for record in records if not record.topic.startswith("$")}
    assert len(devices) == 10
    assert 0 < len(records) <= counts["published"] + 3 * len(devices)
    bad = {record.topic for record in records if record.quality == 0x8000_0000}
    assert bad == {f"{LINE}/oven/exhaust_flow"}
    motor = [json.loads(r.payload) for r in records if r.topic == f"{LINE}/oven/fan_motor"]
    assert len(motor[-1]["ElectricalData"]["CurrentL1_Harm"]) == 42
    assert "Reserve" in motor[-1]
    states = [json.loads(r.payload) for r in records if r.topic == f"{LINE}/oven/oven_state"]
    assert all(set(state) == {"StateValue"} for state in states)
    assert [r for r in records if r.topic == "$gap/plc"]
    assert (tmp_path / "simulator" / "pki" / "server.key").stat().st_mode & 0o777 == 0o600


def test_a_server_knows_its_clients_and_users_and_restarts_when_asked(tmp_path: Path) -> None:
    url = f"opc.tcp://127.0.0.1:{free_port()}"
    clients, users = tmp_path / "clients", tmp_path / "users"
    clients.mkdir()
    users.mkdir()
    command = [sys.executable, "-m", "simulator", "opcua", "--home", str(tmp_path)]
    strict = ["--secure-only", "--trusted", str(clients), "--user-certificates", str(users)]
    simulator = subprocess.Popen(
        [*command, "--lines", LINE, "--url", url, *strict],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    mine = tmp_path / "user.der"
    source = OpcUaSource.model_validate(
        {
            "name": "plc",
            "url": url,
            "security": "sign_and_encrypt",
            "user_certificate_file": mine,
            "user_key_file": tmp_path / "user.key",
            "nodes": [{"path": f"Plant/{LINE}/*/*"}],
        }
    )
    plant = Plant.model_validate({"sources": [source], "lines": [LINE]})
    pki = tmp_path / "capture" / "pki"
    try:
        with CaptureService(Home(tmp_path), plant) as service:

            def status() -> dict[str, Any]:
                found: dict[str, Any] = service.statistics()["sources"]["plc"]
                return found

            until(lambda: "does not accept our certificate" in status()["reason"], "not trusted")
            (clients / "buffer.der").write_bytes((pki / "own" / "client.der").read_bytes())
            until(lambda: "refused with the user certificate" in status()["reason"], "unknown user")
            assert status()["connects"] == 0
            (users / "buffer.der").write_bytes(mine.read_bytes())
            until(lambda: status()["values"] > 0, "values")
            asyncio.run(called_securely(source, Pki(pki), "Restart", 0.5))
            until(lambda: status()["connects"] >= 2, "connected again")
            before = status()["values"]
            until(lambda: status()["values"] > before, "values after the restart")
    finally:
        simulator.send_signal(signal.SIGTERM)
        try:
            simulator.wait(DEADLINE_S)
        finally:
            simulator.kill()
    records = sealed_records(Home(tmp_path), LINE)
    assert not any(b"Reserve" in record.payload for record in records)
    assert [record for record in records if record.topic == "$gap/plc"]
