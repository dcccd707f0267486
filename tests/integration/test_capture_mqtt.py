import logging
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from paho.mqtt.publish import multiple

from buffer_service.service import CaptureService
from iiot_platform.core.capture_log import Record
from iiot_platform.core.paths import Home
from tests.servers.buffer import plant
from tests.servers.capture_reader import sealed_records
from tests.servers.certificates import Authority
from tests.servers.mosquitto import MosquittoServer, ServerTls, program
from tests.servers.ports import free_port

pytestmark = pytest.mark.usefixtures("mqtt_client")
DEADLINE_S = 60.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def publish(server: MosquittoServer, topic: str, payloads: list[bytes], *options: str) -> None:
    subprocess.run(
        [program("mosquitto_pub"), "-p", str(server.port), "-t", topic, "-l", *options],
        input=b"".join(payload + b"\n" for payload in payloads),
        check=True,
        timeout=DEADLINE_S,
    )


def state(service: CaptureService) -> tuple[str, str]:
    source = service.statistics()["sources"]["mqtt"]
    return source["state"], source["reason"]


def captured(service: CaptureService, line: str = "line1") -> int:
    count: int = service.statistics()["lines"][line]["captured"]
    return count


@contextmanager
def capturing(
    home: Path, port: int, *, lines: tuple[str, ...] = ("line1",), **source: object
) -> Iterator[CaptureService]:
    with CaptureService(Home(home), plant(port, list(lines), **source)) as service:
        yield service


def has_captured(service: CaptureService, count: int) -> bool:
    return captured(service) == count


def connected(service: CaptureService) -> Callable[[], bool]:
    return lambda: state(service) == ("connected", "")


def reason_of(service: CaptureService) -> str:
    until(lambda: state(service)[0] == "disconnected")
    return state(service)[1]


def payloads(home: Path, line: str = "line1") -> list[bytes]:
    return [record.payload for record in sealed_records(Home(home), line)]


def numbers(start: int, stop: int) -> list[bytes]:
    return [b'{"n":%d}' % n for n in range(start, stop)]


def test_messages_of_each_line_come_into_its_log(tmp_path: Path) -> None:
    with MosquittoServer(tmp_path / "broker") as server:
        with capturing(tmp_path, server.port, lines=("line1", "line2")) as service:
            until(connected(service))
            publish(server, "line1/m/a", [b"not json", b"\xff\xfe"], "-q", "1")
            publish(server, "line2/m/b", [b"{}"], "-q", "0")
            publish(server, "line1", [b"own level"], "-q", "1")
            until(lambda: captured(service) == 3 and captured(service, "line2") == 1)
            status = service.statistics()
            assert set(status["lines"]["line1"]["devices"]) == {"line1/m/a", "line1"}
            before = time.time_ns() // 1_000
        stored = sealed_records(Home(tmp_path), "line1")
    assert [r.payload for r in stored] == [b"not json", b"\xff\xfe", b"own level"]
    assert all(isinstance(r, Record) and r.source == "mqtt" for r in stored)
    assert all(0 <= before - r.received_ts < DEADLINE_S * 1e6 for r in stored)
    assert payloads(tmp_path, "line2") == [b"{}"]


def test_what_is_published_while_the_buffer_is_away_comes_later(tmp_path: Path) -> None:
    with MosquittoServer(tmp_path / "broker") as server:
        with capturing(tmp_path, server.port) as service:
            until(connected(service))
        publish(server, "line1/m/a", numbers(0, 5_000), "-q", "1")
        with capturing(tmp_path, server.port) as service:
            until(lambda: captured(service) == 5_000)
    assert payloads(tmp_path) == numbers(0, 5_000)


def test_a_retained_message_comes_once_and_says_so(tmp_path: Path) -> None:
    with MosquittoServer(tmp_path / "broker") as server:
        publish(server, "line1/m/a", [b"1"], "-q", "1", "-r")
        for _ in range(2):
            with capturing(tmp_path, server.port) as service:
                until(connected(service))
                until(lambda: captured(service) >= 1)
        publish(server, "line1/m/a", [b"2"], "-q", "1")
        with capturing(tmp_path, server.port) as service:
            until(lambda: captured(service) >= 2)
    stored = sealed_records(Home(tmp_path), "line1")
    assert [(r.payload, r.retain) for r in stored] == [(b"1", True), (b"2", False)]


def test_users_and_passwords(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    users = {"plc": "geheim", "buffer": "s3cret-word"}
    with MosquittoServer(tmp_path / "broker", users=users) as server:
        with capturing(tmp_path, server.port) as service:
            reason = reason_of(service)
            assert reason.startswith(
                "refused without a username, client id 'iiot-buffer': Not auth"
            )
        wrong = {"username": "buffer", "password": "wr0ng-word"}
        with capturing(tmp_path, server.port, **wrong) as service:
            reason = reason_of(service)
            assert reason.startswith("refused as 'buffer', client id 'iiot-buffer': ")
            assert "check username and password" in reason
            until(lambda: service.statistics()["sources"]["mqtt"]["connects"] == 0)
        right = {"username": "buffer", "password": users["buffer"]}
        with capturing(tmp_path, server.port, **right) as service:
            until(connected(service))
            publish(server, "line1/m/a", [b"1"], "-q", "1", "-u", "plc", "-P", "geheim")
            until(lambda: captured(service) == 1)
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [w.getMessage().count("refused") for w in warnings] == [1, 1]
    assert "word" not in caplog.text.replace("password", "")


def _publish_over_tls(server: MosquittoServer, ca: Authority, sent: list[bytes]) -> None:
    tls = {"ca_certs": str(ca.ca_file)}
    messages = [("line1/m/a", payload, 1, False) for payload in sent]
    multiple(messages, server.host, server.port, tls=tls)


def test_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("broker")
    tls = ServerTls(authority.ca_file, pair.cert_file, pair.key_file)
    with MosquittoServer(tmp_path / "broker", tls=tls) as server:
        with capturing(tmp_path, server.port, tls={"ca_file": authority.ca_file}) as service:
            until(connected(service))
            _publish_over_tls(server, authority, numbers(0, 3_000))
            until(lambda: captured(service) == 3_000)
        stranger = Authority(tmp_path / "stranger", "another authority")
        with capturing(tmp_path, server.port, tls={"ca_file": stranger.ca_file}) as service:
            assert "the broker's certificate is not accepted" in reason_of(service)
        unchecked = {"ca_file": stranger.ca_file, "verify": False}
        with capturing(tmp_path, server.port, tls=unchecked) as service:
            until(connected(service))
        with capturing(tmp_path, server.port) as service:
            assert "the port may want TLS; set tls for the source" in reason_of(service)
    assert payloads(tmp_path) == numbers(0, 3_000)


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("another-broker", addresses=())
    tls = ServerTls(authority.ca_file, pair.cert_file, pair.key_file)
    ours = {"ca_file": authority.ca_file}
    with MosquittoServer(tmp_path / "broker", tls=tls) as server:
        with capturing(tmp_path, server.port, tls=ours) as service:
            reason = reason_of(service)
            assert "the broker's certificate is not accepted" in reason
            assert "certificate is not valid for '127.0.0.1'" in reason
            assert service.statistics()["sources"]["mqtt"]["connects"] == 0
        with capturing(tmp_path, server.port, tls={**ours, "verify": False}) as service:
            until(connected(service))


def test_tls_where_plain_is_spoken(tmp_path: Path) -> None:
    with (
        MosquittoServer(tmp_path / "broker") as server,
        capturing(tmp_path, server.port, tls={}) as service,
    ):
        assert "the port seems to speak plain MQTT" in reason_of(service)


def test_client_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("broker")
    tls = ServerTls(authority.ca_file, pair.cert_file, pair.key_file, require_client=True)
    with MosquittoServer(tmp_path / "broker", tls=tls) as server:
        with capturing(tmp_path, server.port, tls={"ca_file": authority.ca_file}) as service:
            assert "the broker may want a client certificate" in reason_of(service)
        mine = authority.issue("buffer")
        files = {"cert_file": mine.cert_file, "key_file": mine.key_file}
        ours = {"ca_file": authority.ca_file, **files}
        with capturing(tmp_path, server.port, tls=ours) as service:
            until(connected(service))


def test_a_broker_that_comes_later_and_goes_and_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = MosquittoServer(tmp_path / "broker", persistent=True, port=free_port())
    with capturing(tmp_path, server.port) as service:
        assert reason_of(service) == "nothing listens there; is the broker running?"
        with server:
            until(connected(service))
            publish(server, "line1/m/a", numbers(0, 100), "-q", "1")
        until(lambda: state(service)[0] == "disconnected")
        with server:
            publish(server, "line1/m/a", numbers(100, 200), "-q", "1")
            until(lambda: captured(service) == 200)
    assert payloads(tmp_path) == numbers(0, 200)
    assert "connected, new session" in caplog.text
    assert "connected, session resumed" in caplog.text


def test_a_broker_that_forgot_everything_is_subscribed_anew(tmp_path: Path) -> None:
    server = MosquittoServer(tmp_path / "broker")
    with capturing(tmp_path, server.port) as service:
        for n in range(3):
            with server:
                until(connected(service))
                publish(server, "line1/m/a", [b"same"] * 10, "-q", "1")
                # a session that is gone is a gap, which is a record of its own
                until(partial(has_captured, service, 10 * (n + 1) + n))
                server.kill()
            reason_of(service)
    found = payloads(tmp_path)
    assert [payload for payload in found if payload == b"same"] == [b"same"] * 30
    assert len(found) == 32


def test_two_buffers_with_one_client_id_say_so(tmp_path: Path) -> None:
    with (
        MosquittoServer(tmp_path / "broker") as server,
        capturing(tmp_path / "a", server.port) as first,
    ):
        until(connected(first))
        with capturing(tmp_path / "b", server.port):
            until(lambda: "another client connects with client id" in state(first)[1])


def test_nothing_is_acknowledged_while_the_log_can_not_commit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    home = Home(tmp_path)
    sent = numbers(0, 600)
    with MosquittoServer(tmp_path / "broker") as server:
        with capturing(tmp_path, server.port, receive_maximum=100) as service:
            until(connected(service))
            with closing(sqlite3.connect(home.manifest, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                publish(server, "line1/m/a", sent, "-q", "1")
                until(lambda: "database is locked" in service.statistics()["storage_error"])
                until(lambda: len(service._batch) == 100)
                assert captured(service) == 0
                other.execute("ROLLBACK")
            until(lambda: captured(service) == 600)
            assert service.statistics()["storage_error"] == ""
        errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
        assert len(errors) == 1
        assert "committing again" in caplog.text
    assert payloads(tmp_path) == sent


def test_nothing_is_taken_from_the_reserve_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10_000_000_000]
    monkeypatch.setattr(
        "buffer_service.disk.shutil.disk_usage", lambda _: SimpleNamespace(total=2e10, free=free[0])
    )
    sent = numbers(0, 300)
    with (
        MosquittoServer(tmp_path / "broker") as server,
        capturing(tmp_path, server.port, receive_maximum=100) as service,
    ):
        until(connected(service))
        free[0] = 100_000_000
        until(lambda: service._disk.full)
        publish(server, "line1/m/a", sent, "-q", "1")
        until(lambda: len(service._batch) == 100)
        assert captured(service) == 0
        until(lambda: "full but for the reserve" in service.statistics()["storage_error"])
        assert service.statistics()["disk"]["level"] == "full"
        free[0] = 10_000_000_000
        until(lambda: captured(service) == 300)
        assert service.statistics()["storage_error"] == ""
        assert service.statistics()["disk"]["level"] == "ok"
    assert payloads(tmp_path) == sent
