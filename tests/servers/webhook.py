"""A receiver of webhooks on a free port of 127.0.0.1: answers as it is told, keeps what it got."""

import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.servers.certificates import KeyPair
from tests.servers.ports import free_port


@dataclass
class Request:
    """One POST."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """Use it with `with`; a stopped one can be started again on the same port.

    Attributes:
        answers: status codes of the next answers; 204 behind them.
        location: where a redirect leads to.
        requests: everything that was posted, refused or not.
        taken: what was answered with 2xx.
        certificate: with it TLS is spoken, and nothing else.
    """

    port: int = field(default_factory=free_port)
    answers: list[int] = field(default_factory=list)
    location: str = ""
    requests: list[Request] = field(default_factory=list)
    taken: list[Request] = field(default_factory=list)
    certificate: KeyPair | None = None
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/alerts"

    @property
    def told(self) -> list[tuple[str, str]]:
        """Id and state of every alert that was taken, in order."""
        return [(a["id"], a["state"]) for one in self.taken for a in one.json["alerts"]]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = Request(self.path, dict(self.headers), body)
                status = receiver.answers.pop(0) if receiver.answers else 204
                receiver.requests.append(request)
                if status < 300:
                    receiver.taken.append(request)
                self.send_response(status)
                if status // 100 == 3:
                    self.send_header("Location", receiver.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        if self.certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self.certificate.cert_file, self.certificate.key_file)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
