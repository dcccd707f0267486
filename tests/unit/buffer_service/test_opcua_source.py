import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.ua import uaerrors

from buffer_service.delivery import Delivery
from buffer_service.sources import opcua_connection
from buffer_service.sources.event_loop import EventLoopThread
from buffer_service.sources.opcua import LONGEST_PAUSE_S, OpcUaReceiver
from buffer_service.sources.opcua_connection import REQUEST_TIMEOUT_S
from buffer_service.sources.opcua_failures import sentence
from buffer_service.sources.opcua_nodes import LineRoute, Shape, Target, node_id
from buffer_service.sources.opcua_pki import Identity, Pki
from buffer_service.status import STATUS_FILE, away_since
from iiot_platform.config.opcua_source import OpcUaSource
from iiot_platform.core.capture_log import Record
from iiot_platform.core.errors import SourceError
from tests.servers.ports import free_port

ROUTES = {"line1": LineRoute("line1", "line1/")}
SET_UP_S = 0.5
"""What connecting and subscribing themselves take, generously."""
TARGET = Target(ua.NodeId(ua.Int32(1)), "line1", "line1/m/d", "signal", ua.NodeId(ua.Int32(11)))


def settings(**fields: Any) -> OpcUaSource:
    given = {"name": "plc", "url": "opc.tcp://127.0.0.1:4840", "nodes": [{"path": "a/*"}]}
    return OpcUaSource.model_validate({**given, **fields})


def receiver(folder: Path, *, away_since_ms: int | None = None, **fields: Any) -> OpcUaReceiver:
    return OpcUaReceiver(
        settings(**fields),
        routes=ROUTES,
        pki=folder / "pki",
        loop=EventLoopThread(),
        on_pressure=lambda: None,
        away_since_ms=away_since_ms,
    )


def drained(source: OpcUaReceiver) -> list[Record]:
    return [event.record for event in source.drain() if isinstance(event, Delivery)]


@contextmanager
def started(source: OpcUaReceiver) -> Iterator[None]:
    source.start()
    try:
        yield
    finally:
        source.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def test_a_server_that_is_away_is_said_and_the_thread_ends_with_the_source(tmp_path: Path) -> None:
    source = receiver(tmp_path, url=f"opc.tcp://127.0.0.1:{free_port()}")
    with started(source):
        until(lambda: source.status.state == "disconnected")
        assert source.status.reason == "nothing listens there; is the server running?"
    assert source.status.reason == "stopped"
    until(lambda: not any(thread.name == "asyncio" for thread in threading.enumerate()))


def test_a_server_that_is_back_is_subscribed_again_within_ten_seconds(tmp_path: Path) -> None:
    source = receiver(tmp_path)
    connection = opcua_connection.Connection(settings(), ROUTES, Pki(tmp_path), source)
    client = connection._client
    assert client.uaclient._timeout == client._reconnect_request_timeout == REQUEST_TIMEOUT_S
    pauses_s = [source._backoff.next_s() for _ in range(100)]
    assert 0 < max(pauses_s) <= LONGEST_PAUSE_S
    closing_s, looking_s = opcua_connection._CLOSE_TIMEOUT_S, opcua_connection._LOOK_S
    knocking_s = 2 * opcua_connection._KNOCK_S
    # at worst it is back just after an attempt has begun that hangs, and then comes the pause
    begun_anew_s = REQUEST_TIMEOUT_S + closing_s + LONGEST_PAUSE_S
    taken_up_s = client._reconnect_max_delay + REQUEST_TIMEOUT_S + knocking_s + looking_s
    assert max(begun_anew_s, taken_up_s) < 10 - SET_UP_S


def test_the_time_before_the_first_connection_is_a_gap_of_every_line(tmp_path: Path) -> None:
    source = receiver(tmp_path, away_since_ms=1_795_000_000_000)
    source.connected(1, [])
    (record,) = drained(source)
    assert record.topic == "$gap/plc"
    gap = json.loads(record.payload)
    assert (gap["begin_ms"], gap["reason"]) == (1_795_000_000_000, "the buffer was not running")
    source.connected(1, [])
    assert drained(source) == []


def test_holes_are_gaps_but_not_one_for_each_value(tmp_path: Path) -> None:
    source = receiver(tmp_path)
    for _ in range(100):
        source.hole("the queue was too short")
    assert len(drained(source)) == 1
    assert source.status.counts["holes"] == 100


@pytest.mark.parametrize(("keep_s", "gaps"), [(3_600.0, 0), (0.0, 1)])
def test_a_cut_longer_than_the_server_keeps_is_a_gap(
    tmp_path: Path, keep_s: float, gaps: int
) -> None:
    source = receiver(tmp_path, keep_s=keep_s)
    source.connected(1, [])
    source.alive()
    source.bridged("the connection is away")
    time.sleep(0.01)
    source.resumed()
    assert len(drained(source)) == gaps


@pytest.mark.parametrize(
    ("shape", "value", "payload"),
    [
        ("signal", 3.0, b'{"SensorValue":3.0}'),
        ("signal", 3, b'{"SensorValue":3}'),
        ("state", 3.0, b'{"StateValue":3}'),
        ("state", 3.5, b'{"StateValue":3.5}'),
        ("state", True, b'{"StateValue":true}'),
        ("struct", {"B": 1, "A": None}, b'{"B":1,"A":null}'),
        ("struct", None, b'{"Value":null}'),
    ],
)
def test_payloads(tmp_path: Path, shape: Shape, value: Any, payload: bytes) -> None:
    source = receiver(tmp_path)
    source.take(TARGET._replace(shape=shape), value, ua.DataValue(ua.Variant(None)))
    (record,) = drained(source)
    assert record.payload == payload


def test_the_queue_is_full_until_the_disk_has_taken_something(tmp_path: Path) -> None:
    source = receiver(tmp_path, queue_limit=1)
    source.take(TARGET, 1.5, ua.DataValue(ua.Variant(1.5)))

    async def waits() -> bool:
        try:
            await asyncio.wait_for(source.room(), 0.05)
        except TimeoutError:
            return True
        return False

    assert asyncio.run(waits())
    source.acknowledge([None])
    assert not asyncio.run(waits())


def test_status_of_an_earlier_run_tells_since_when_it_was_away(tmp_path: Path) -> None:
    assert away_since(tmp_path) == {}
    sources = {"a": {"state": "connected", "since_ms": 5}, "b": {"state": "gone", "since_ms": 7}}
    (tmp_path / STATUS_FILE).write_text(json.dumps({"written_ms": 9, "sources": sources}))
    assert away_since(tmp_path) == {"a": 9, "b": 7}
    (tmp_path / STATUS_FILE).write_text('{"written_ms"')
    assert away_since(tmp_path) == {}


def test_node_ids_follow_the_namespace_and_not_its_index() -> None:
    with pytest.raises(LookupError, match="no namespace 'urn:plc'; it has urn:other"):
        node_id("nsu=urn:plc;s=MAIN", {"urn:other": 2})
    for index in (2, 4):
        found = node_id("nsu=urn:plc;s=MAIN.f;x=1", {"": 0, "urn:plc": index})
        assert found == ua.NodeId(ua.String("MAIN.f;x=1"), ua.Int16(index))
    assert node_id("nsu=urn:plc;b=AP8=", {"urn:plc": 2}).Identifier == b"\x00\xff"
    with pytest.raises(ValueError, match="badly formed"):
        node_id("g=1", {})
    assert node_id("i=2258", {}) == ua.NodeId(ua.Int32(2258))


def test_our_certificate_is_made_once_and_its_key_is_ours_alone(tmp_path: Path) -> None:
    first = Pki(tmp_path).identity()
    assert first.key.stat().st_mode & 0o777 == 0o600
    content = first.certificate.read_bytes()
    assert Pki(tmp_path).identity() == first
    assert first.certificate.read_bytes() == content
    first.certificate.write_bytes(b"rubbish")
    with pytest.raises(SourceError, match="no certificate can be kept there"):
        Pki(tmp_path).identity()


def test_two_sources_that_start_together_get_one_identity(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read(Pki(tmp_path).identity()), range(4)))
    assert len(set(found)) == 1


def read(identity: Identity) -> tuple[bytes, bytes]:
    return identity.certificate.read_bytes(), identity.key.read_bytes()


def test_the_certificate_that_a_server_showed_first_is_trusted(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    pki.check("plc", "url", b"first", None)
    pki.check("plc", "url", b"first", None)
    with pytest.raises(SourceError, match="remove that file if the server has a new one"):
        pki.check("plc", "url", b"second", None)
    with pytest.raises(SourceError, match="set server_certificate_file"):
        pki.check("plc", "url", b"first", Pki(tmp_path / "x").identity().certificate)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (uaerrors.BadUserAccessDenied(), "refused as 'u': wrong user name or password"),
        (uaerrors.BadCertificateUntrusted(), "let it trust own.der"),
        (uaerrors.BadTooManySubscriptions(), "use mode: poll"),
        (uaerrors.BadNodeIdUnknown(), "the server says BadNodeIdUnknown"),
        (TimeoutError(), "no answer; check host, port and firewall"),
        (SourceError("told"), "told"),
        (RuntimeError("x"), "unexpected failure: RuntimeError('x')"),
    ],
)
def test_failures_say_what_to_do(error: Exception, text: str) -> None:
    assert text in sentence(error, settings(username="u"), "own.der")
