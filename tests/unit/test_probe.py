"""What a health check of a container says."""

import json
import os
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from iiot_platform.probe import ALERTS_STALE_S, main
from tests.servers.certificates import Authority


class Handler(BaseHTTPRequestHandler):
    status: ClassVar[int] = 200
    daemons: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        self._answer(b"ok")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        health = {"allDaemonStatuses": self.daemons}
        self._answer(json.dumps({"data": {"instance": {"daemonHealth": health}}}).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (Handler,), {})) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_http(server: ThreadingHTTPServer, status: int, code: int) -> None:
    server.RequestHandlerClass.status = status  # type: ignore[attr-defined]  # our own class
    assert main(["http", f"http://127.0.0.1:{server.server_port}/healthz"]) == code


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http", "http://127.0.0.1:1/healthz"]) == 1
    assert "http: " in capsys.readouterr().err


def test_https_counts_the_authorities_that_are_named(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_file, pair.key_file)
    # the handshake belongs to the request's thread
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    monkeypatch.setenv("PROBE_CA_FILE", str(authority.ca_file))
    assert main(["http", f"https://127.0.0.1:{server.server_port}/healthz"]) == 0
    monkeypatch.setenv("PROBE_CA_FILE", "")
    monkeypatch.setattr(server, "handle_error", lambda *_: None)
    assert main(["http", f"https://127.0.0.1:{server.server_port}/healthz"]) == 1


@pytest.mark.parametrize(
    ("required", "healthy", "code"), [(True, True, 0), (False, False, 0), (True, False, 1)]
)
def test_daemon(server: ThreadingHTTPServer, *, required: bool, healthy: bool, code: int) -> None:
    status = {"daemonType": "SENSOR", "required": required, "healthy": healthy}
    server.RequestHandlerClass.daemons = [status]  # type: ignore[attr-defined]  # our own class
    assert main(["daemon", f"http://127.0.0.1:{server.server_port}"]) == code


@pytest.mark.parametrize(("serving", "code"), [(True, 0), (False, 1)])
def test_code_server(*, serving: bool, code: int) -> None:
    states = health_pb2.HealthCheckResponse
    servicer = health.HealthServicer()
    servicer.set("DagsterApi", states.SERVING if serving else states.NOT_SERVING)
    with futures.ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            assert main(["code-server", f"127.0.0.1:{port}"]) == code
        finally:
            server.stop(None).wait()


def test_no_pool_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IIOT_HOME", str(tmp_path))
    assert main(["pool"]) == 1


@pytest.mark.parametrize(("age_s", "code"), [(1.0, 0), (ALERTS_STALE_S + 5, 1), (None, 1)])
def test_alerts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_s: float | None, code: int
) -> None:
    monkeypatch.setenv("IIOT_HOME", str(tmp_path))
    if age_s is not None:
        written = tmp_path / "alerts.sqlite-wal"
        written.touch()
        os.utime(written, (time.time() - age_s,) * 2)
    assert main(["alerts"]) == code
