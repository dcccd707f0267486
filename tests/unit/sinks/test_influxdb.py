import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from iiot_platform.config.settings import InfluxSettings
from iiot_platform.core import schema
from iiot_platform.core.errors import SinkError
from iiot_platform.sinks import influxdb
from iiot_platform.sinks.influxdb import InfluxSink, is_loopback
from iiot_platform.sinks.refusals import RefusedError
from tests.reference.table_rows import make_rows


class Answers(ThreadingHTTPServer):
    """Answers with the given codes in turn, the last one for ever."""

    codes: list[int]
    version = "v2.7.12"
    asked: list[str]
    retry_after = "60"
    encoding: str | None = None
    body: bytes = b""


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        self.server.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.encoding = self.headers.get("Content-Encoding")
        self.server.asked.append(f"{self.path} {self.headers.get('Authorization')}")
        codes = self.server.codes
        code = codes.pop(0) if len(codes) > 1 else codes[0]
        body = b'{"message":"as asked"}' if code != 204 else b""
        self.send_response(code)
        self.send_header("X-Influxdb-Version", self.server.version)
        self.send_header("Retry-After", self.server.retry_after)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def answers() -> Iterator[Answers]:
    with Answers(("127.0.0.1", 0), _Handler) as server:
        server.codes, server.asked = [204], []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sink(server: Answers, *, retry_for_s: float = 0.3, **login: Any) -> InfluxSink:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    settings = InfluxSettings(url=url, **({"token": SecretStr("t")} | login))
    return InfluxSink(settings, retry_for_s=retry_for_s)


@pytest.mark.parametrize("code", [429, 500, 503])
def test_what_may_pass_is_tried_again_within_the_time(answers: Answers, code: int) -> None:
    rows = make_rows(schema.SIGNALS, 1)
    with sink(answers, retry_for_s=60.0) as patient:
        answers.codes, answers.retry_after = [code, 204], "0"
        assert patient.write(schema.SIGNALS, rows).points == 1
    assert len(answers.asked) == 2
    with sink(answers) as ready:
        answers.codes, answers.retry_after = [code], "60"
        started = time.monotonic()
        with pytest.raises(SinkError, match=f"answers {code}: as asked"):
            ready.write(schema.SIGNALS, rows)
    assert time.monotonic() - started < 60.0  # the server asked for 60 s


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422])
def test_what_will_not_pass_is_tried_once(answers: Answers, code: int) -> None:
    answers.codes = [code]
    with sink(answers) as ready, pytest.raises(SinkError, match="as asked"):
        ready.write(schema.SIGNALS, make_rows(schema.SIGNALS, 1))
    assert len(answers.asked) == 1


def test_many_refused_rows_cost_a_bounded_number_of_requests(answers: Answers) -> None:
    answers.codes = [422]
    with sink(answers) as ready, pytest.raises(RefusedError, match="refuses 5000 of 5000"):
        ready.write(schema.SIGNALS, make_rows(schema.SIGNALS, 5_000))
    assert len(answers.asked) < 60


def test_user_and_password_log_in_as_version_1_8_wants(answers: Answers) -> None:
    login = {"token": SecretStr(""), "username": "u", "password": SecretStr("p")}
    with sink(answers, **login) as ready:
        ready.write(schema.SIGNALS, make_rows(schema.SIGNALS, 1))
    assert answers.asked[0].endswith("Token u:p")


def test_version_3_is_said_to_be_unable_to_delete(answers: Answers) -> None:
    answers.version = "3.4.1"
    with sink(answers) as ready, pytest.raises(RefusedError, match=r"version 3\.4\.1.*not delete"):
        ready.delete_range(schema.SIGNALS, "line1", 0, 1)


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104 - a name to judge, nothing listens
        ("10.0.0.7", False),
        ("128.0.0.1", False),
        ("2001:db8::1", False),
        ("influxdb", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("", False),
    ],
)
def test_what_stays_on_this_machine(host: str, *, near: bool) -> None:
    assert is_loopback(host) is near


def test_points_that_leave_the_machine_are_compressed_fast(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(schema.SIGNALS, 50)
    with sink(answers) as near:
        near.write(schema.SIGNALS, rows)
    plain = answers.body
    assert answers.encoding is None
    assert plain.startswith(b"GenericSensor,")
    monkeypatch.setattr(influxdb, "is_loopback", lambda _: False)
    with sink(answers) as remote:
        remote.write(schema.SIGNALS, rows)
    assert answers.encoding == "gzip"
    assert gzip.decompress(answers.body) == plain
    assert answers.body[8] == 4, "level 1 says so in its header"
