"""A real InfluxDB for tests: Debian's influxd 1.6 behind a thin front that speaks the v2 write API.

The front translates addresses and log-in and passes bodies and status codes on, both ways; it
never answers by itself. Faults, and what version 3 does otherwise, are asked for with its switches.
"""

import base64
import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from iiot_platform.config.settings import InfluxSettings
from tests.servers.ports import free_port

USER = "iiot"
_CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{root}/meta"
[data]
  dir = "{root}/data"
  wal-dir = "{root}/wal"
  query-log-enabled = false
[monitor]
  store-enabled = false
[subscriber]
  enabled = false
[continuous_queries]
  enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  auth-enabled = true
  log-enabled = false
  max-body-size = {max_body_bytes}
"""


@dataclass
class Faults:
    """Switches of the front.

    Attributes:
        cut_before: how many requests for a path are cut before the server sees them.
        cut_after: how many answers are cut after the server has done its work.
        delay_s: how long a request waits before it is passed on.
        is_version_3: whether it says so as version 3 does, and deletes as little.
        seen: method, path and query of every request, in order.
        encodings: Content-Encoding of every write, in order; empty where it has none.
    """

    cut_before: dict[str, int] = field(default_factory=dict)
    cut_after: dict[str, int] = field(default_factory=dict)
    delay_s: float = 0.0
    is_version_3: bool = False
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    encodings: list[str] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.seen]

    def clear(self) -> None:
        self.cut_before.clear()
        self.cut_after.clear()
        self.delay_s = 0.0
        self.is_version_3 = False
        self.seen.clear()
        self.encodings.clear()


def _one_of(counts: dict[str, int], path: str) -> bool:
    left = counts.get(path, 0)
    counts[path] = max(left - 1, 0)
    return left > 0


class _Front(ThreadingHTTPServer):
    daemon_threads = True
    faults: Faults
    upstream: int


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Front

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._forward()

    def do_POST(self) -> None:
        self._forward()

    def _forward(self) -> None:
        faults = self.server.faults
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        faults.seen.append((self.command, url.path, query))
        if url.path == "/api/v2/write":
            faults.encodings.append(self.headers.get("Content-Encoding", ""))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(faults.delay_s)
        if _one_of(faults.cut_before, url.path):
            self._cut()
            return
        if faults.is_version_3 and (url.path == "/ping" or b"q=DELETE" in body):
            self._answer_as_version_3(url.path)
            return
        try:
            answer, content = self._upstream(url.path, query, body)
        except OSError:  # the server is away: so is its front
            self._cut()
            return
        if _one_of(faults.cut_after, url.path):
            self._cut()
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "content-length", "connection", "date"}:
                self.send_header(name, value)
        if answer.status != http.HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer_as_version_3(self, path: str) -> None:
        """It says its version in the body, and its InfluxQL knows no DELETE."""
        pinged = path == "/ping"
        content = b'{"version":"3.4.1"}' if pinged else b'{"error":"not implemented: DELETE"}'
        self.send_response(http.HTTPStatus.OK if pinged else http.HTTPStatus.BAD_REQUEST)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _upstream(
        self, path: str, query: dict[str, str], body: bytes
    ) -> tuple[http.client.HTTPResponse, bytes]:
        if path == "/api/v2/write":
            path = "/write"
            query = {"db": query.get("bucket", ""), "precision": query.get("precision", "ns")}
        headers = {k: v for k in ("Content-Type", "Content-Encoding") if (v := self.headers.get(k))}
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Token":
            login = base64.b64encode(f"{USER}:{token}".encode()).decode()
            headers["Authorization"] = f"Basic {login}"
        target = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        with contextlib.closing(connection):
            connection.request(self.command, target, body=body, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read()

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


@dataclass
class Influx:
    """A server under test, ours or the one that the environment names."""

    url: str
    token: str
    org: str = "iiot"
    bucket: str = "iiot"
    faults: Faults | None = None
    process: "InfluxProcess | None" = None

    @property
    def settings(self) -> InfluxSettings:
        return InfluxSettings(
            url=self.url, token=SecretStr(self.token), org=self.org, bucket=self.bucket
        )

    def query(self, influxql: str) -> list[dict[str, Any]]:
        """The rows of an InfluxQL query, one dict each, tags of a series included."""
        return [row for series in self.series(influxql) for row in series_rows(series)]

    def series(self, influxql: str) -> list[dict[str, Any]]:
        """The series of an InfluxQL query as the server gives them; times in milliseconds."""
        form = urllib.parse.urlencode({"db": self.bucket, "epoch": "ms", "q": influxql}).encode()
        request = urllib.request.Request(  # noqa: S310  # http to the server under test
            f"{self.url}/query", data=form, headers={"Authorization": f"Token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310  # likewise
            answer = json.load(response)
        errors = [r["error"] for r in answer["results"] if "error" in r]
        assert not errors, f"{influxql}: {errors}"
        return [series for result in answer["results"] for series in result.get("series", [])]


def series_rows(series: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        series.get("tags", {}) | dict(zip(series["columns"], values, strict=True))
        for values in series.get("values", [])
    ]


class InfluxProcess:
    """One influxd with its own folder, which can be killed and started again."""

    def __init__(self, root: Path, max_body_bytes: int) -> None:
        self.port = free_port()
        self.root = root
        self._config = root / "influxdb.conf"
        self._config.write_text(
            _CONFIG.format(
                root=root, port=self.port, rpc=free_port(), max_body_bytes=max_body_bytes
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, deadline_s: float = 60.0) -> None:
        log = (self.root / "influxd.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                ["influxd", "run", "-config", str(self._config)], stdout=log, stderr=log
            )
        until = time.monotonic() + deadline_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError((self.root / "influxd.log").read_text()[-2_000:])
            time.sleep(0.05)

    def ensure(self) -> None:
        """Starts it where a test has left it killed."""
        if self._process is None:
            self.start()

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/ping")
            return connection.getresponse().status == http.HTTPStatus.NO_CONTENT
        return False

    def admin(self, influxql: str, token: str) -> None:
        """Run a statement as the administrator, or as nobody while there is none."""
        login = base64.b64encode(f"{USER}:{token}".encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(
                "POST",
                "/query?" + urllib.parse.urlencode({"q": influxql}),
                headers={"Authorization": f"Basic {login}"},
            )
            answer = connection.getresponse().read()
        assert b"error" not in answer, answer


def missing() -> str | None:
    """Why no server can be had here, or None."""
    if os.environ.get("IIOT_TEST_INFLUX_URL") or shutil.which("influxd"):
        return None
    return "no influxd on this machine: apt-get install influxdb, or set IIOT_TEST_INFLUX_URL"


def require() -> None:
    """Skip where no server can be had; on CI that is a failure."""
    reason = missing()
    if reason is None:
        return
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextlib.contextmanager
def server(root: Path, *, max_body_bytes: int = 25_000_000) -> Iterator[Influx]:
    """The server that the environment names, else influxd 1.6 and its front on free ports."""
    url = os.environ.get("IIOT_TEST_INFLUX_URL")
    if url:
        yield Influx(
            url=url.rstrip("/"),
            token=os.environ.get("IIOT_TEST_INFLUX_TOKEN", ""),
            org=os.environ.get("IIOT_TEST_INFLUX_ORG", "iiot"),
            bucket=os.environ.get("IIOT_TEST_INFLUX_BUCKET", "iiot"),
        )
        return
    token = secrets.token_hex(16)
    process = InfluxProcess(root, max_body_bytes)
    process.start()
    front = _Front(("127.0.0.1", 0), _Handler)
    front.upstream = process.port
    front.faults = Faults()
    thread = threading.Thread(target=front.serve_forever, args=(0.05,), name="influx-front")
    thread.start()
    try:
        process.admin(f"CREATE USER {USER} WITH PASSWORD '{token}' WITH ALL PRIVILEGES", token)
        process.admin("CREATE DATABASE iiot", token)
        yield Influx(
            url=f"http://127.0.0.1:{front.server_address[1]}",
            token=token,
            faults=front.faults,
            process=process,
        )
    finally:
        front.shutdown()
        front.server_close()
        thread.join()
        process.kill()
