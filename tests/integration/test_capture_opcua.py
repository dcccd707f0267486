import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from buffer_service.service import CaptureService
from iiot_platform.config.plant import Line, Plant
from iiot_platform.core.capture_log import Record
from iiot_platform.core.paths import Home
from simulator.opcua_server import NAMESPACE
from tests.servers.capture_reader import sealed_records
from tests.servers.fault_table import Outcome, Tell
from tests.servers.opcua import MOTOR, SIGNAL, START_MS, STATE, VALVE, OpcUaServer, payload
from tests.servers.tcp_proxy import TcpProxy

DEADLINE_S = 60.0
NODES = [{"path": "Plant/line1/m/state", "kind": "state"}, {"path": "Plant/line1/*/*"}]


def until(condition: Callable[[], bool], what: str = "", deadline_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def plant(url: str, **source: Any) -> Plant:
    given = {"kind": "opcua", "name": "plc", "url": url, "nodes": NODES, **source}
    return Plant.model_validate({"sources": [given], "lines": [Line(name="line1")]})


@contextmanager
def capturing(home: Path, url: str, **source: Any) -> Iterator[CaptureService]:
    with CaptureService(Home(home), plant(url, **source)) as service:
        yield service


def source_of(service: CaptureService) -> dict[str, Any]:
    status: dict[str, Any] = service.statistics()["sources"]["plc"]
    return status


def is_connected(service: CaptureService, connects: int = 1) -> Callable[[], bool]:
    return lambda: (
        source_of(service)["state"] == "connected" and source_of(service)["connects"] >= connects
    )


def captured(service: CaptureService) -> int:
    count: int = service.statistics()["lines"]["line1"]["captured"]
    return count


def records(home: Path, topic: str) -> list[Record]:
    return [r for r in sealed_records(Home(home), "line1") if r.topic == topic]


def values(home: Path, topic: str) -> list[dict[str, Any]]:
    return [json.loads(r.payload) for r in records(home, topic)]


def gaps(home: Path) -> list[dict[str, Any]]:
    return values(home, "$gap/plc")


def test_every_value_comes_as_it_was_written(tmp_path: Path) -> None:
    fast = {"sampling_interval_ms": 10, "publishing_interval_ms": 100}
    with (
        OpcUaServer(tmp_path / "server") as server,
        capturing(tmp_path, server.url, **fast) as service,
    ):
        until(is_connected(service))
        until(lambda: captured(service) == 4, "initial values")
        start_ms, begin_us = START_MS, time.time_ns() // 1_000
        server.tell(f"burst 1 301 10 {start_ms}")
        end_us = time.time_ns() // 1_000
        until(lambda: captured(service) == 4 + 4 * 300, "the burst")
    assert [v["SensorValue"] for v in values(tmp_path, SIGNAL)[1:]] == [
        payload(SIGNAL, n)["SensorValue"] for n in range(1, 301)
    ]
    assert [v["StateValue"] for v in values(tmp_path, STATE)[1:]] == list(range(1, 301))
    for topic in (VALVE, MOTOR):
        expected = [payload(topic, n, start_ms) for n in range(1, 301)]
        assert values(tmp_path, topic)[1:] == expected
        assert list(values(tmp_path, topic)[1]) == list(expected[0])
    stamps = [r.source_ts for r in records(tmp_path, SIGNAL)[1:]]
    assert stamps == [1_000 * (start_ms + 10 * n) for n in range(1, 301)]
    assert all(r.quality == 0 for r in records(tmp_path, MOTOR)[1:])
    # the devices' clocks are wrong here, the server's is not
    written = [r.server_ts or 0 for r in records(tmp_path, SIGNAL)[1:]]
    assert begin_us - 1_000 <= written[0] < written[-1] <= end_us
    assert written == sorted(written)
    assert gaps(tmp_path) == []


@pytest.mark.faults
def test_a_restart_is_survived_and_leaves_a_gap(tmp_path: Path, told: Tell) -> None:
    with OpcUaServer(tmp_path / "server") as server, capturing(tmp_path, server.url) as service:
        until(is_connected(service))
        before_ms = time.time() * 1_000
        server.tell("burst 1 11 10")
        until(lambda: captured(service) == 4 + 40)
        server.stop()
        until(lambda: source_of(service)["state"] == "disconnected")
        restarted_ms = time.time() * 1_000
        # another namespace before ours, and one field more in every structure
        server.start(generation=1, other_namespaces=3)
        until(is_connected(service, 2))
        server.tell("burst 11 21 10")
        until(lambda: captured(service) == 4 + 40 + 1 + 4 + 40)
    (gap,) = gaps(tmp_path)
    assert before_ms - 1 < gap["begin_ms"] < restarted_ms < gap["end_ms"]
    assert gap["reason"]
    numbers = [v["TimeValue"] for v in values(tmp_path, VALVE) if "TimeValue" in v]
    told(Outcome.of("OPC UA server restarted", 1, range(1, 21), numbers, noticed="gap record"))
    assert numbers == list(range(1, 21))
    assert values(tmp_path, VALVE)[-1]["Reserve"] == 1.0


@pytest.mark.faults
@pytest.mark.parametrize("silently", [False, True])
def test_a_short_cut_loses_nothing(tmp_path: Path, told: Tell, *, silently: bool) -> None:
    with OpcUaServer(tmp_path / "server") as server, TcpProxy(server.port) as proxy:
        url = f"opc.tcp://127.0.0.1:{proxy.port}"
        with capturing(tmp_path, url, sampling_interval_ms=10) as service:
            until(is_connected(service))
            until(lambda: captured(service) == 4)
            server.send("burst 1 401 10")
            until(lambda: captured(service) > 100)
            proxy.cut(silently=silently)
            until(lambda: source_of(service)["state"] == "disconnected")
            proxy.mend()
            until(lambda: captured(service) == 4 + 4 * 400, "what was kept")
            until(is_connected(service))
    numbers = [v["StateValue"] for v in values(tmp_path, STATE)[1:]]
    how = "black hole" if silently else "reset"
    told(Outcome.of(f"OPC UA network cut: {how}", 1, range(1, 401), numbers))
    assert numbers == list(range(1, 401))
    assert gaps(tmp_path) == []


def test_a_bad_node_does_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [
        {"path": "Plant/line1/m/missing"},
        {"node": f"nsu={NAMESPACE};s=gone", "machine": "m", "device": "gone"},
        {"node": "nsu=urn:nobody;s=x", "machine": "m", "device": "x"},
        {"node": f"nsu={NAMESPACE};s={SIGNAL}", "machine": "press", "device": "oil"},
    ]
    with (
        OpcUaServer(tmp_path / "server") as server,
        capturing(tmp_path, server.url, nodes=nodes) as service,
    ):
        until(is_connected(service))
        server.tell("burst 1 11 10")
        until(lambda: captured(service) == 11)
        status = source_of(service)
    assert len(values(tmp_path, "line1/press/oil")) == 11
    assert status["refused_nodes"] == 3
    for text in ("'missing' is not there", "BadNodeIdUnknown", "no namespace 'urn:nobody'"):
        assert text in status["reason"]
        assert text in caplog.text


def test_values_that_are_not_good_keep_their_status(tmp_path: Path) -> None:
    with OpcUaServer(tmp_path / "server") as server, capturing(tmp_path, server.url) as service:
        until(is_connected(service))
        until(lambda: captured(service) == 4)
        for topic in (SIGNAL, STATE, MOTOR):
            server.tell(f"null {topic} 0x80310000")
        until(lambda: captured(service) == 7)
    for topic, body in ((SIGNAL, "SensorValue"), (STATE, "StateValue"), (MOTOR, "Value")):
        last = records(tmp_path, topic)[-1]
        assert (last.quality, json.loads(last.payload)) == (0x8031_0000, {body: None})
        assert last.source_ts is not None


def test_sign_and_encrypt_with_user_and_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    options = {"username": "line", "password": "s3cret", "only": True}
    secured = {"security": "sign_and_encrypt", "username": "line", "password": "s3cret"}
    with OpcUaServer(tmp_path / "server", **options) as server:
        with capturing(tmp_path, server.url, **secured) as service:
            until(is_connected(service))
            server.tell("burst 1 11 10")
            until(lambda: captured(service) >= 40)
        assert "trusting its certificate on first use" in caplog.text
        pki = tmp_path / "capture" / "pki"
        assert (pki / "own" / "client.key").stat().st_mode & 0o777 == 0o600
        assert (pki / "trusted" / "plc.der").read_bytes() == server.certificate.read_bytes()
        wrong = {**secured, "password": "guess"}
        with capturing(tmp_path / "wrong", server.url, **wrong) as service:
            until(lambda: "refused as 'line'" in source_of(service)["reason"])
        (pki / "trusted" / "plc.der").write_bytes(b"another")
        with capturing(tmp_path, server.url, **secured) as service:
            until(lambda: "certificate is not trusted" in source_of(service)["reason"])
        with capturing(
            tmp_path / "pinned", server.url, **secured, server_certificate_file=server.certificate
        ) as service:
            until(is_connected(service))
        unsecured = {**secured, "security": "none"}
        with capturing(tmp_path / "plain", server.url, **unsecured) as service:
            until(lambda: source_of(service)["state"] == "disconnected")
    assert "s3cret" not in caplog.text
    assert "guess" not in caplog.text


@pytest.mark.parametrize(
    ("security", "mode"),
    [("none", "None_"), ("sign", "Sign"), ("sign_and_encrypt", "SignAndEncrypt")],
)
def test_the_channel_is_secured_as_the_plant_file_says(
    tmp_path: Path, security: str, mode: str
) -> None:
    with (
        OpcUaServer(tmp_path / "server") as server,
        capturing(tmp_path, server.url, security=security) as service,
    ):
        until(is_connected(service))
        assert server.tell("channels") == mode


def test_a_server_that_does_not_trust_us_is_told(tmp_path: Path) -> None:
    trusted = tmp_path / "clients"
    trusted.mkdir()
    with (
        OpcUaServer(tmp_path / "server", trusted=str(trusted)) as server,
        capturing(tmp_path, server.url, security="sign") as service,
    ):
        until(lambda: "does not accept our certificate" in source_of(service)["reason"])
        own = tmp_path / "capture" / "pki" / "own" / "client.der"
        assert str(own) in source_of(service)["reason"]
        (trusted / "buffer.der").write_bytes(own.read_bytes())
        until(is_connected(service))


def test_the_time_that_the_buffer_was_away_is_a_gap(tmp_path: Path) -> None:
    with OpcUaServer(tmp_path / "server") as server:
        began_ms = time.time_ns() // 1_000_000
        with capturing(tmp_path, server.url) as service:
            until(is_connected(service))
        away_ms = time.time() * 1_000
        with capturing(tmp_path, server.url) as service:
            until(is_connected(service))
            until(lambda: captured(service) >= 5)
    (gap,) = gaps(tmp_path)
    assert gap["reason"] == "the buffer was not running"
    assert began_ms <= gap["begin_ms"] <= away_ms < gap["end_ms"]


def test_a_type_that_changes_while_connected_is_loaded_anew(tmp_path: Path) -> None:
    with (
        OpcUaServer(tmp_path / "server") as server,
        capturing(tmp_path, server.url) as service,
    ):
        until(is_connected(service))
        server.tell("burst 1 6 10")
        until(lambda: captured(service) == 4 + 20)
        server.tell("extend")
        server.tell("burst 6 11 10")
        until(lambda: captured(service) == 4 + 40)
    valve = values(tmp_path, VALVE)[1:]
    assert [v["TimeValue"] for v in valve] == list(range(1, 11))
    assert ["Reserve" in v for v in valve] == [False] * 5 + [True] * 5


def test_two_servers_may_give_one_id_to_different_types(tmp_path: Path) -> None:
    with OpcUaServer(tmp_path / "a") as first, OpcUaServer(tmp_path / "b", generation=1) as second:
        shared = {"kind": "opcua", "nodes": [{"path": "Plant/line1/m/valve"}]}
        sources = [
            {**shared, "name": "a", "url": first.url},
            {**shared, "name": "b", "url": second.url},
        ]
        lines = [{"name": "line1", "source": "a"}, {"name": "line2", "source": "b"}]
        both = Plant.model_validate({"sources": sources, "lines": lines})
        with CaptureService(Home(tmp_path), both) as service:
            found = service.statistics
            until(lambda: all(line["captured"] for line in found()["lines"].values()))
            for server in (first, second):
                server.tell("burst 1 11 10")
            until(lambda: all(line["captured"] >= 11 for line in found()["lines"].values()))
    for line, reserve in (("line1", None), ("line2", 1.0)):
        stored = [
            json.loads(r.payload)
            for r in sealed_records(Home(tmp_path), line)
            if r.topic == f"{line}/m/valve"
        ]
        assert stored[-1]["TimeValue"] == 10
        assert stored[-1].get("Reserve") == reserve


def test_polling_brings_changes(tmp_path: Path) -> None:
    with (
        OpcUaServer(tmp_path / "server") as server,
        capturing(tmp_path, server.url, mode="poll", sampling_interval_ms=20) as service,
    ):
        until(is_connected(service))
        until(lambda: captured(service) == 4)
        for number in range(1, 6):  # each is seen before the next replaces it
            server.tell(f"burst {number} {number + 1} 1")
            until(lambda n=number: captured(service) == 4 + 4 * n)
    assert [v["StateValue"] for v in values(tmp_path, STATE)] == [None, *range(1, 6)]
