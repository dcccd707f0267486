"""The HTTP endpoint of a process: `/metrics`, `/healthz`, `/readyz`."""

import hmac
import json
import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from iiot_platform.config.endpoint import EndpointError, EndpointSettings

logger = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 16
_TIMEOUT_S: Final = 10.0
_STOP_S: Final = 0.1
"""How often the server looks whether it is to end, and how long an end then takes."""

Check = Callable[[], Mapping[str, str]]
"""What is not as it should be: what, and why; empty where all is well."""
_Start = Callable[[str, list[tuple[str, str]]], object]


class MetricsServer:
    """Serves the metrics and the health of this process.

    With a token, metrics and the reasons of a failing check are for those who show it; whether a
    check passes is told to everyone, since probes carry no secrets.

        with MetricsServer(settings, collector, healthy=..., ready=...) as server:
            print(server.url)

    Args:
        settings: address, TLS and token.
        collector: the metrics; those of the process are added.
        healthy: what keeps the process from doing its work, whatever it depends on.
        ready: what keeps it from serving its purpose now.

    Raises:
        EndpointError: the address is taken, or certificate and key can not be used.
    """

    def __init__(
        self, settings: EndpointSettings, collector: Collector, *, healthy: Check, ready: Check
    ) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        ProcessCollector(registry=registry)
        self._settings = settings
        where = f"{settings.host}:{settings.port}"
        context = _tls(settings, where)
        try:
            self._server = _Server((settings.host, settings.port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise EndpointError(
                f"metrics can not be served on {where}: {reason}; choose another address"
            ) from error
        self._server.set_app(_Application(settings, registry, healthy=healthy, ready=ready))
        if context is not None:
            # the handshake belongs to the thread of the connection: one that stalls holds up none
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_STOP_S,), name="metrics"
        )

    @property
    def url(self) -> str:
        """Address of the endpoint."""
        scheme = "http" if self._settings.cert_file is None else "https"
        host = self._settings.host
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._server.server_port}"

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


class _Application:
    """The endpoint as a WSGI application."""

    def __init__(
        self,
        settings: EndpointSettings,
        registry: CollectorRegistry,
        *,
        healthy: Check,
        ready: Check,
    ) -> None:
        self._settings = settings
        self._metrics = make_wsgi_app(registry)
        self._checks = {"/healthz": healthy, "/readyz": ready}

    def __call__(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        check = self._checks.get(path)
        if not self._is_ours(environ.get("HTTP_HOST", "")):
            # another site's name that points here would read this through a browser
            return _answer(start, HTTPStatus.FORBIDDEN, {"error": "ask by the address"})
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _answer(start, HTTPStatus.METHOD_NOT_ALLOWED, {"error": "ask with GET"})
        authorized = self._authorized(environ.get("HTTP_AUTHORIZATION", ""))
        if check is not None:
            return _checked(start, check, told=authorized)
        if path != "/metrics":
            known = ["/metrics", *self._checks]
            return _answer(start, HTTPStatus.NOT_FOUND, {"error": f"there are {', '.join(known)}"})
        if not authorized:
            return _answer(
                start,
                HTTPStatus.UNAUTHORIZED,
                {"error": "show the token: Authorization: Bearer <token>"},
                ("WWW-Authenticate", "Bearer"),
            )
        answer: Iterable[bytes] = self._metrics(environ, start)
        return answer

    def _is_ours(self, host: str) -> bool:
        if not self._settings.loopback:
            return True
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        return name.strip("[]") in {self._settings.host, "localhost"}

    def _authorized(self, header: str) -> bool:
        token = self._settings.token
        if token is None:
            return True
        scheme, _, shown = header.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            shown.strip().encode(), token.get_secret_value().encode()
        )


def _checked(start: _Start, check: Check, *, told: bool) -> Iterable[bytes]:
    try:
        problems = dict(check())
    except Exception:  # the boundary of a request: a check that fails is no pass
        logger.exception("a health check failed")
        problems = {"check": "failed; see the log"}
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    body: dict[str, Any] = {"ok": not problems}
    if told:
        body["problems"] = problems
    return _answer(start, status, body)


def _answer(
    start: _Start, status: HTTPStatus, body: Mapping[str, Any], *headers: tuple[str, str]
) -> Iterable[bytes]:
    text = json.dumps(body, ensure_ascii=False).encode() + b"\n"
    start(
        f"{status.value} {status.phrase}",
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(text))),
            ("Cache-Control", "no-store"),
            *headers,
        ],
    )
    return [text]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # also who is sent away is taken out of it first, without the second of a repeated SYN
    request_queue_size = 4 * MOST_CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._room = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread each, and no more than some: beyond, whoever asks is sent away."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's
        logger.debug("a request from %s failed: %r", client_address, sys.exception())


class _Handler(WSGIRequestHandler):
    timeout = _TIMEOUT_S

    def log_message(self, *_: Any) -> None:
        pass


def _tls(settings: EndpointSettings, where: str) -> ssl.SSLContext | None:
    if settings.cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise EndpointError(
            f"metrics on {where}: certificate '{settings.cert_file}' and key"
            f" '{settings.key_file}' can not be used: {error.strerror or error}"
        ) from error
    return context
