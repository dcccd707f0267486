"""The live page: the newest report on loopback, made when somebody looks."""

import threading
from collections.abc import Callable
from contextlib import closing
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from iiot_platform.alerts.firing import standing
from iiot_platform.client import Client
from iiot_platform.core.errors import PlatformError, SourceError
from iiot_platform.core.paths import Home
from iiot_platform.engine.status import StatusReader
from iiot_platform.report.page import render, waiting
from iiot_platform.report.reading import read_report

HOST: Final = "127.0.0.1"
PORT: Final = 8_050
REFRESH_S: Final = 5.0
_BUSY_SHARE: Final = 0.2
_STOP_S: Final = 0.1
"""How often the server looks whether it is to end, and how long an end then takes."""


class PortError(SourceError):
    """The port of the live page is taken."""

    def __init__(self, port: int, reason: str) -> None:
        super().__init__(f"can not listen on {HOST}:{port}: {reason}; choose another with --port")


class LivePage:
    """The page of a home; made when somebody looks, at most once per interval.

    Making it takes a fifth of a core at most: where it takes long, it is made less often.

    Args:
        home: where the tables are.
        line: one line alone; None: all.
        last_s: length of the period.
        dagster_url: address of the Dagster UI; None: no links.
        refresh_s: how often the page is made anew.
    """

    def __init__(
        self,
        home: Home,
        *,
        line: str | None = None,
        last_s: float,
        dagster_url: str | None = None,
        refresh_s: float = REFRESH_S,
    ) -> None:
        self._home = home
        self._lines = None if line is None else [line]
        self._last_s = last_s
        self._dagster_url = dagster_url
        self._refresh_s = refresh_s
        self._status = StatusReader(home)
        self._lock = threading.Lock()
        self._content = b""
        self._due = -inf

    def close(self) -> None:
        """Closes the ledger."""
        self._status.close()

    def content(self) -> bytes:
        """The page; where there is nothing to show yet, one that says so and tries again."""
        with self._lock:
            start = monotonic()
            if start >= self._due:
                self._content = self._page().encode("utf-8", "xmlcharrefreplace")
                took_s = monotonic() - start
                self._due = start + max(self._refresh_s, took_s / _BUSY_SHARE)
            return self._content

    def _page(self) -> str:
        try:
            with closing(Client(self._home)) as client:
                status = self._status.read()
                report = read_report(client, lines=self._lines, last_s=self._last_s, status=status)
            alerts = standing(self._home.alerts)
        except PlatformError as error:
            return waiting(str(error), refresh_s=self._refresh_s)
        firing = None if alerts is None else alerts.firing
        return render(
            report, firing=firing, dagster_url=self._dagster_url, refresh_s=self._refresh_s
        )


class ReportServer:
    """Serves a live page on loopback.

    with ReportServer(page, port=8050) as server:
        print(server.url)

    Args:
        page: what is served.
        port: port on 127.0.0.1; 0: any that is free.

    Raises:
        PortError: something else listens there.
    """

    def __init__(self, page: LivePage, *, port: int = PORT) -> None:
        try:
            self._server = ThreadingHTTPServer((HOST, port), _handler(page.content))
        except OSError as error:
            raise PortError(port, error.strerror or str(error)) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_STOP_S,), name="live-page"
        )

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(content: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            if not self._is_ours():
                # another site's name that points here would read the page through a browser
                self._answer(HTTPStatus.FORBIDDEN, b"open the page by its address\n", "text/plain")
            elif self.path.partition("?")[0] != "/":
                self._answer(HTTPStatus.NOT_FOUND, b"the page is at /\n", "text/plain")
            else:
                self._answer(HTTPStatus.OK, content(), "text/html; charset=utf-8")

        def log_message(self, *_: Any) -> None:
            pass

        def _is_ours(self) -> bool:
            host = self.headers.get("Host", "").rpartition(":")[0]
            return host in {HOST, "localhost"}

        def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

    return Handler
