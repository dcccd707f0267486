import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from pydantic import SecretStr

from iiot_platform.config.endpoint import EndpointError, EndpointSettings
from iiot_platform.metrics.endpoint import MOST_CONNECTIONS, Check, MetricsServer
from tests.servers.certificates import Authority
from tests.servers.http_client import get

TOKEN = "t0ken-word"  # noqa: S105 - of this test


class One(Collector):
    def collect(self) -> Iterator[Family]:
        family = GaugeMetricFamily("iiot_one", "One.")
        family.add_metric([], 1)
        yield family


def well() -> Mapping[str, str]:
    return {}


@contextmanager
def serving(ready: Check = well, **settings: object) -> Iterator[str]:
    endpoint = EndpointSettings(**settings)  # type: ignore[arg-type]  # what each test says
    with MetricsServer(endpoint, One(), healthy=well, ready=ready) as server:
        yield server.url


def test_metrics_of_the_collector_and_of_the_process() -> None:
    with serving() as url:
        status, text = get(f"{url}/metrics")
    assert status == 200
    assert "iiot_one 1.0" in text
    assert "process_resident_memory_bytes" in text


def test_other_paths_methods_and_names_are_refused() -> None:
    with serving() as url:
        assert get(f"{url}/")[0] == 404
        assert get(f"{url}/metrics", {"Host": "evil.example:80"})[0] == 403
        assert get(f"{url}/metrics", {"Host": "localhost"})[0] == 200
        with closing(socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))) as raw:
            raw.sendall(b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            assert b" 405 " in raw.recv(100)


def test_what_is_not_ready_is_named() -> None:
    problems: dict[str, str] = {}
    with serving(ready=lambda: problems) as url:
        assert get(f"{url}/healthz") == (200, '{"ok": true, "problems": {}}\n')
        assert get(f"{url}/readyz")[0] == 200
        problems["storage"] = "disk full"
        status, text = get(f"{url}/readyz")
        assert status == 503
        assert json.loads(text) == {"ok": False, "problems": {"storage": "disk full"}}


def test_a_check_that_fails_is_no_pass(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Mapping[str, str]:
        raise ValueError("boom")

    with serving(ready=broken) as url:
        status, text = get(f"{url}/readyz")
    assert status == 503
    assert "boom" not in text
    assert "boom" in caplog.text


def test_the_token_guards_metrics_and_reasons() -> None:
    with serving(ready=lambda: {"storage": "disk full"}, token=SecretStr(TOKEN)) as url:
        for header in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}):
            assert get(f"{url}/metrics", header)[0] == 401
            assert get(f"{url}/readyz", header) == (503, '{"ok": false}\n')
        shown = {"Authorization": f"Bearer {TOKEN}"}
        assert get(f"{url}/metrics", shown)[0] == 200
        assert "disk full" in get(f"{url}/readyz", shown)[1]


def test_tls_and_a_client_that_stalls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("endpoint")
    trust = ssl.create_default_context(cafile=authority.ca_file)
    with serving(cert_file=pair.cert_file, key_file=pair.key_file) as url:
        assert url.startswith("https://127.0.0.1:")
        port = int(url.rpartition(":")[2])
        with closing(socket.create_connection(("127.0.0.1", port))):  # says nothing
            assert get(f"{url}/metrics", tls=trust)[0] == 200


def test_many_who_stall_take_a_bounded_number_of_threads() -> None:
    with serving() as url:
        port = int(url.rpartition(":")[2])
        before = threading.active_count()
        stalling = [
            socket.create_connection(("127.0.0.1", port)) for _ in range(MOST_CONNECTIONS + 4)
        ]
        try:
            sent_away = stalling[-1]
            sent_away.settimeout(20)
            assert sent_away.recv(1) == b""
            assert threading.active_count() <= before + MOST_CONNECTIONS
        finally:
            for connection in stalling:
                connection.close()


def test_a_taken_port_and_a_bad_certificate_are_told(tmp_path: Path) -> None:
    with (
        serving() as url,
        pytest.raises(EndpointError, match="Address already in use; choose another"),
        serving(port=int(url.rpartition(":")[2])),
    ):
        pass
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    with (
        pytest.raises(EndpointError, match=r"'.*bad\.pem'.* can not be used"),
        serving(cert_file=bad, key_file=bad),
    ):
        pass
