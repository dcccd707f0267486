import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from buffer_service.service import CaptureService
from buffer_service.sources import opcua_connection, opcua_monitoring, opcua_pki
from iiot_platform.config.plant import Plant
from iiot_platform.core.paths import Home
from simulator.opcua_security import make_certificate
from tests.servers.capture_reader import sealed_records
from tests.servers.opcua import STATE, OpcUaServer
from tests.servers.tcp_proxy import TcpProxy

DEADLINE_S = 60.0
NODES = [{"path": "Plant/line1/m/state", "kind": "state"}, {"path": "Plant/line1/*/*"}]
SECURED = {"security": "sign_and_encrypt"}
SESSION_MS = 2_000


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


def during(seconds: float, condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), what
        time.sleep(0.05)


@contextmanager
def capturing(home: Path, url: str, **source: Any) -> Iterator[Callable[[], dict[str, Any]]]:
    given = {"kind": "opcua", "name": "plc", "url": url, "nodes": NODES, **source}
    plant = Plant.model_validate({"sources": [given], "lines": ["line1"]})
    with CaptureService(Home(home), plant) as service:

        def status() -> dict[str, Any]:
            found = service.statistics()
            return {**found["sources"]["plc"], "captured": found["lines"]["line1"]["captured"]}

        yield status


def stored(home: Path, topic: str) -> list[dict[str, Any]]:
    records = sealed_records(Home(home), "line1")
    return [json.loads(r.payload) for r in records if r.topic == topic]


def numbers(home: Path, *, missing: bool = False) -> set[int | None]:
    found = {one["StateValue"] for one in stored(home, STATE)}
    return found if missing else found - {None}


def test_a_session_that_expired_in_a_cut_is_begun_anew(tmp_path: Path) -> None:
    with (
        OpcUaServer(tmp_path / "server", session_ms=SESSION_MS) as server,
        TcpProxy(server.port) as proxy,
        capturing(tmp_path, f"opc.tcp://127.0.0.1:{proxy.port}") as status,
    ):
        until(lambda: status()["captured"] == 4, "first values")
        proxy.cut(silently=True)
        until(lambda: server.tell("sessions") == "0", "the server has ended the session")
        server.tell("burst 1 11 1")
        proxy.mend()
        until(lambda: status()["connects"] == 2, "connected again")
        server.tell("burst 11 21 1")
        until(lambda: 20 in numbers(tmp_path), "values")
    (gap,) = stored(tmp_path, "$gap/plc")
    assert gap["end_ms"] > gap["begin_ms"]
    assert gap["reason"]
    assert numbers(tmp_path) == set(range(10, 21))


def test_a_cut_that_is_too_long_is_not_bridged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opcua_connection, "BRIDGE_S", 0.3)
    with (
        OpcUaServer(tmp_path / "server") as server,
        TcpProxy(server.port) as proxy,
        capturing(tmp_path, f"opc.tcp://127.0.0.1:{proxy.port}") as status,
    ):
        until(lambda: status()["captured"] == 4, "first values")
        proxy.cut()
        until(lambda: "the connection is away" in caplog.text, "bridged")
        until(lambda: status()["state"] == "disconnected", "said so")
        until(lambda: status()["reason"] != "the connection is away", "given up")
        assert server.tell("sessions") == "1"  # and could have been taken up
        proxy.mend()
        until(lambda: status()["connects"] >= 2, "begun anew")
        until(lambda: len(stored(tmp_path, "$gap/plc")) >= 1, "the gap")


def test_for_a_server_that_has_ended_nothing_is_bridged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opcua_connection, "BRIDGE_S", 1e9)
    with (
        OpcUaServer(tmp_path / "server") as server,
        capturing(tmp_path, server.url) as status,
    ):
        until(lambda: status()["captured"] == 4, "first values")
        server.stop()
        until(lambda: "nothing listens there" in status()["reason"], "begun anew")
        server.start()
        until(lambda: status()["connects"] >= 2, "connected again")
        until(lambda: len(stored(tmp_path, "$gap/plc")) >= 1, "the gap")


def test_a_value_that_stays_is_no_silence_and_a_server_that_hangs_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opcua_monitoring, "KEEP_ALIVE_S", 1.0)
    with (
        OpcUaServer(tmp_path / "server") as server,
        capturing(tmp_path, server.url, keep_s=0.5) as status,
    ):
        until(lambda: status()["captured"] == 4, "first values")
        during(5.0, lambda: status()["connects"] == 1 and status()["gaps"] == 0, "unchanged")
        server.signal(signal.SIGSTOP)
        until(lambda: status()["state"] == "disconnected", "silence is noticed")
        server.signal(signal.SIGCONT)
        until(lambda: status()["state"] == "connected", "it speaks again")
        until(lambda: status()["gaps"] == 1, "the gap")


@pytest.mark.parametrize(("session_ms", "gaps"), [(SESSION_MS, 1), (60_000, 0)])
def test_a_buffer_that_is_stopped_goes_on(tmp_path: Path, session_ms: int, gaps: int) -> None:
    with OpcUaServer(tmp_path / "server", session_ms=session_ms) as server:
        plant = tmp_path / "plant.yaml"
        plant.write_text(
            f"sources: [{{kind: opcua, name: plc, url: '{server.url}',"
            f" nodes: {json.dumps(NODES)}}}]\nlines: [line1]\n"
        )
        command = [sys.executable, "-m", "buffer_service", "--home", str(tmp_path)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        buffer = subprocess.Popen([*command, "--plant", str(plant)], env=env)
        try:
            until((tmp_path / "capture" / "status.json").exists, "the log")
            until(lambda: len(sealed_records(Home(tmp_path), "line1")) == 4, "first values")
            buffer.send_signal(signal.SIGSTOP)
            if gaps:
                until(lambda: server.tell("sessions") == "0", "the session has expired")
            server.tell("burst 1 11 1")
            buffer.send_signal(signal.SIGCONT)
            until(lambda: len(stored(tmp_path, "$gap/plc")) == gaps, "the gap")
            until(lambda: 10 in numbers(tmp_path), "the value of now")
            server.tell("burst 11 21 1")
            until(lambda: 20 in numbers(tmp_path), "values")
        finally:
            buffer.send_signal(signal.SIGCONT)
            buffer.terminate()
            buffer.wait(DEADLINE_S)
    assert numbers(tmp_path) == set(range(10 if gaps else 1, 21))


def test_a_certificate_that_expires_is_said_and_its_renewal_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "server"
    with OpcUaServer(folder) as server, capturing(tmp_path, server.url, **SECURED) as status:
        until(lambda: status()["captured"] == 4, "first values")
        after = dt.datetime.now(dt.UTC) + dt.timedelta(days=4_000)
        monkeypatch.setattr(opcua_pki, "clock", lambda: after)
        until(lambda: "certificate has expired" in status()["reason"], "said while connected")
        assert status()["state"] == "connected"
        server.stop()
        server.start()
        until(lambda: status()["reason"].startswith("the server's certificate has"), "refused")
        assert "renew it on the server" in status()["reason"]
        server.stop()
        server.certificate.unlink()
        make_certificate(server.certificate, folder / "server.key", days=9_000)
        server.start()
        until(lambda: status()["connects"] == 2, "connected again")
    assert "renewed with the same key" in caplog.text
    trusted = tmp_path / "capture" / "pki" / "trusted" / "plc.der"
    assert trusted.read_bytes() == (folder / "server.der").read_bytes()


def test_a_user_is_a_certificate_that_is_made_once(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.mkdir()
    mine, key = tmp_path / "pki" / "user.der", tmp_path / "pki" / "user.key"
    source = {**SECURED, "user_certificate_file": str(mine), "user_key_file": str(key)}
    with (
        OpcUaServer(tmp_path / "server", users=str(users), only=True) as server,
        capturing(tmp_path, server.url, **source) as status,
    ):
        until(lambda: "refused with the user certificate" in status()["reason"], "refused")
        assert str(mine) in status()["reason"]
        assert key.stat().st_mode & 0o777 == 0o600
        (users / "buffer.der").write_bytes(mine.read_bytes())
        until(lambda: status()["state"] == "connected", "let in")
        until(lambda: len(numbers(tmp_path, missing=True)) == 1, "a value")
