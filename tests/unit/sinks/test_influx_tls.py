"""InfluxDB over TLS: the authorities that count are those of a file."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from iiot_platform.config.settings import SettingError, Settings
from iiot_platform.core.errors import SinkError
from iiot_platform.sinks.influxdb import InfluxSink
from tests.servers.certificates import Authority


class Ping(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.send_header("X-Influxdb-Version", "v2.7.12")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Clients that refuse the certificate are the point."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Authority]]:
    authority = Authority(tmp_path / "pki")
    pair = authority.issue("influxdb")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_file, pair.key_file)
    with Server(("127.0.0.1", 0), Ping) as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}", authority
        server.shutdown()
        thread.join()


def sink(url: str, **more: str) -> InfluxSink:
    settings = Settings.from_environ({"INFLUX_URL": url, "INFLUX_TOKEN": "t", **more})
    assert settings.influx is not None
    return InfluxSink(settings.influx, retry_for_s=0.0)


def test_the_plants_own_authority_counts(served: tuple[str, Authority], tmp_path: Path) -> None:
    url, authority = served
    with sink(url, INFLUX_CA_FILE=str(authority.ca_file)) as known:
        assert known.ping() == "v2.7.12"
    other = Authority(tmp_path / "other", "another authority")
    for more in ({}, {"INFLUX_CA_FILE": str(other.ca_file)}):
        with sink(url, **more) as unknown, pytest.raises(SinkError, match="does not answer"):
            unknown.ping()


def test_a_file_that_is_missing_is_told() -> None:
    with pytest.raises(SettingError, match="INFLUX_CA_FILE: '/nowhere' is no file"):
        sink("https://influxdb:8086", INFLUX_CA_FILE="/nowhere")
