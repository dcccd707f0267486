"""The shipped proxy lets nobody to the Dagster UI without TLS and password."""

import base64
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.servers.dagster import wait_for
from tests.servers.http_client import get
from tests.servers.ports import free_port
from tests.servers.stack import DEPLOY, Stack

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
START_S = 60.0


class WebServer(BaseHTTPRequestHandler):
    seen: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.seen.append(self.headers["Authorization"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the UI")

    def log_message(self, *_: Any) -> None:
        pass


SHIPPED = {
    "nginx/iiot.conf": "dagster-webserver:3000",
    "helm/iiot-platform/files/nginx.conf": "127.0.0.1:3000",
}
"""Configurations, and where the web server is for each."""


@pytest.fixture(params=SHIPPED)
def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Stack]]:
    if NGINX is None:
        reason = "no nginx on this machine: apt-get install nginx-light"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    stack = Stack(tmp_path)
    stack.prepare()
    WebServer.seen.clear()
    port = free_port()
    with ThreadingHTTPServer(("127.0.0.1", 0), WebServer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        text = (DEPLOY / request.param).read_text(encoding="utf-8")
        for shipped, here in (
            ("/tmp/", f"{tmp_path}/"),  # noqa: S108 - of the container
            ("/run/secrets/ui_users", stack.path("proxy", "/run/secrets/ui_users")),
            ("/run/secrets/ui_cert", stack.path("proxy", "/run/secrets/ui_cert")),
            ("/run/secrets/ui_key", stack.path("proxy", "/run/secrets/ui_key")),
            ("listen 8443", f"listen 127.0.0.1:{port}"),
            (SHIPPED[request.param], f"127.0.0.1:{server.server_port}"),
        ):
            assert shipped in text
            text = text.replace(shipped, str(here))
        config = tmp_path / "iiot.conf"
        config.write_text(text, encoding="utf-8")
        # its workers would be another user, who may not enter the folder of the test
        user = " user root;" if os.getuid() == 0 else ""
        with (tmp_path / "nginx.log").open("wb") as log:
            process = subprocess.Popen(
                [NGINX, "-c", config, "-g", f"daemon off;{user}"], stdout=log, stderr=log
            )
        try:
            yield f"https://localhost:{port}", stack
        finally:
            process.terminate()
            process.wait(START_S)
            server.shutdown()
            thread.join()


def test_who_is_let_in(proxied: tuple[str, Stack]) -> None:
    url, stack = proxied
    tls = ssl.create_default_context(cafile=str(stack.folder / "secrets" / "ca.pem"))

    def healthy() -> bool:
        try:
            return get(f"{url}/healthz", tls=tls) == (200, "ok\n")
        except OSError:
            return False

    def ask(password: str) -> int:
        login = base64.b64encode(f"admin:{password}".encode()).decode()
        return get(f"{url}/", {"Authorization": f"Basic {login}"}, tls)[0]

    wait_for(healthy, "the proxy", START_S)
    assert get(f"{url}/graphql", tls=tls)[0] == 401
    assert ask("wrong") == 401
    assert WebServer.seen == []
    password = (stack.folder / "secrets" / "ui_password").read_text(encoding="utf-8").strip()
    assert ask(password) == 200
    assert WebServer.seen == [None]  # the password is the proxy's alone
