import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from paho.mqtt.publish import multiple

from buffer_service.broker_watch import TOPIC, BrokerWatch
from buffer_service.disk import Space
from buffer_service.metrics import BufferCollector, unhealthy, unready
from buffer_service.service import CaptureService
from iiot_platform.config.endpoint import EndpointSettings
from iiot_platform.config.plant import MqttSource
from iiot_platform.core.paths import Home
from iiot_platform.metrics import buffer as declared
from iiot_platform.metrics.endpoint import MetricsServer
from tests.servers import prometheus
from tests.servers.buffer import plant
from tests.servers.capture_reader import sealed_records
from tests.servers.http_client import get, samples
from tests.servers.mosquitto import MosquittoServer
from tests.servers.ports import free_port

DEADLINE_S = 60.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


class Buffer:
    """A buffer in this process with its endpoint."""

    def __init__(self, home: Path, port: int, *lines: str, **source: object) -> None:
        made = plant(port, list(lines or ("line1",)), **source)
        self.service = CaptureService(Home(home), made)
        self._watches = [BrokerWatch(s) for s in made.sources if isinstance(s, MqttSource)]
        self._server = MetricsServer(
            EndpointSettings(),
            BufferCollector(self.service, Home(home), self._watches),
            healthy=lambda: unhealthy(self.service),
            ready=lambda: unready(self.service),
        )
        self._running = ExitStack()

    def __enter__(self) -> Self:
        for part in (self._server, self.service, *self._watches):
            self._running.enter_context(part)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.close()

    @property
    def text(self) -> str:
        status, text = get(f"{self._server.url}/metrics")
        assert status == 200
        return text

    def value(self, name: str) -> float | None:
        return samples(self.text).get(name)

    def state(self, check: str = "readyz") -> tuple[int, Mapping[str, str]]:
        status, text = get(f"{self._server.url}/{check}")
        return status, json.loads(text)["problems"]


@contextmanager
def broker(folder: Path, **options: object) -> Iterator[MosquittoServer]:
    with MosquittoServer(folder, lines=("sys_interval 1",), **options) as server:  # type: ignore[arg-type]  # as given
        yield server


def send(server: MosquittoServer, topic: str, count: int) -> None:
    multiple([(topic, b"%d" % n, 1, False) for n in range(count)], server.host, server.port)


def test_counts_are_those_of_the_log_and_the_names_are_declared(tmp_path: Path) -> None:
    with (
        broker(tmp_path / "broker") as server,
        Buffer(tmp_path, server.port, "line1", "line2") as buffer,
    ):
        until(lambda: buffer.state() == (200, {}))
        send(server, "line1/m/a", 300)
        captured = 'iiot_buffer_messages_captured_total{line="line1",source="mqtt"}'
        until(lambda: buffer.value(captured) == 300)
        until(lambda: (buffer.value("iiot_buffer_segments_total") or 0) >= 1)
        until(lambda: buffer.value("iiot_buffer_hot_rows") == 0)
        text = buffer.text
    found = samples(text)
    assert found['iiot_buffer_messages_received_total{source="mqtt"}'] >= 300
    assert found['iiot_buffer_messages_captured_total{line="line2",source="mqtt"}'] == 0
    assert found['iiot_buffer_source_connected{source="mqtt"}'] == 1
    assert found['iiot_buffer_source_reconnects_total{source="mqtt"}'] == 0
    assert found['iiot_buffer_unacknowledged_messages{source="mqtt"}'] == 0
    assert found["iiot_buffer_commit_duration_seconds_count"] >= 1
    assert (
        found['iiot_buffer_commit_duration_seconds_bucket{le="+Inf"}']
        == (found["iiot_buffer_commit_duration_seconds_count"])
    )
    assert (
        0 < found["iiot_buffer_filesystem_free_bytes"] < found["iiot_buffer_filesystem_size_bytes"]
    )
    served = {row.split()[2] for row in text.splitlines() if row.startswith("# TYPE iiot_")}
    assert served == {metric.name for metric in declared.METRICS}
    prometheus.require()
    prometheus.promtool("check", "metrics", text=text)


def test_a_broker_that_is_away_comes_and_goes_is_named(tmp_path: Path) -> None:
    server = MosquittoServer(tmp_path / "broker", port=free_port())
    with Buffer(tmp_path, server.port) as buffer:
        why = "disconnected: nothing listens there; is the broker running?"
        until(lambda: buffer.state() == (503, {"source mqtt": why}))
        assert buffer.state("healthz") == (200, {})
        assert buffer.value('iiot_buffer_source_connected{source="mqtt"}') == 0
        for times in range(2):
            with server:
                until(lambda: buffer.state() == (200, {}))
            until(lambda: buffer.state()[0] == 503)
            assert buffer.value('iiot_buffer_source_reconnects_total{source="mqtt"}') == times


def test_a_log_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with (
        broker(tmp_path / "broker") as server,
        Buffer(tmp_path, server.port, receive_maximum=100) as buffer,
    ):
        until(lambda: buffer.state() == (200, {}))
        with closing(sqlite3.connect(home.manifest, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            send(server, "line1/m/a", 50)
            until(lambda: "database is locked" in buffer.state()[1].get("storage", ""))
            until(lambda: buffer.value('iiot_buffer_unacknowledged_messages{source="mqtt"}') == 50)
            assert buffer.value("iiot_buffer_storage_failing") == 1
            failures = 'iiot_buffer_storage_errors_total{operation="commit"}'
            until(lambda: (buffer.value(failures) or 0) > 0)
            assert buffer.state("healthz") == (200, {})
            other.execute("ROLLBACK")
        until(lambda: buffer.state() == (200, {}))
        # the commit stands before it is acknowledged
        until(lambda: buffer.value('iiot_buffer_unacknowledged_messages{source="mqtt"}') == 0)


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    with broker(tmp_path / "broker") as server, Buffer(tmp_path, server.port) as buffer:
        until(lambda: buffer.state() == (200, {}))
        disk = buffer.service._disk
        real, disk._space = disk._space, lambda _folder: Space(total=10**12, free=1)
        until(lambda: "free" in buffer.state()[1].get("storage", ""))
        assert buffer.state("healthz") == (200, {})
        assert buffer.value("iiot_buffer_storage_failing") == 1
        send(server, "line1/m/a", 5)
        until(lambda: buffer.value('iiot_buffer_unacknowledged_messages{source="mqtt"}') == 5)
        disk._space = real
        until(lambda: buffer.state() == (200, {}))
        until(
            lambda: (
                buffer.value('iiot_buffer_messages_captured_total{line="line1",source="mqtt"}') == 5
            )
        )


def test_a_buffer_that_has_stopped_is_not_healthy(tmp_path: Path) -> None:
    with broker(tmp_path / "broker") as server, Buffer(tmp_path, server.port) as buffer:
        until(lambda: buffer.state() == (200, {}))
        buffer.service.stop()
        status, problems = buffer.state("healthz")
        assert status == 503
        assert set(problems) == {"commit", "source mqtt"}
        assert buffer.state()[0] == 503


def test_what_the_broker_drops_is_counted_and_never_captured(tmp_path: Path) -> None:
    queue = ("max_queued_messages 10", "max_inflight_messages 1", "sys_interval 1")
    with MosquittoServer(tmp_path / "broker", lines=queue) as server:
        drops = 'iiot_buffer_broker_messages_dropped_total{source="mqtt"}'
        with Buffer(tmp_path, server.port) as buffer:
            until(lambda: buffer.state() == (200, {}))
            until(lambda: buffer.value(drops) == 0)
        send(server, "line1/m/a", 100)  # the session waits, and has room for ten
        with Buffer(tmp_path, server.port) as buffer:
            until(lambda: (buffer.value(drops) or 0) > 0)
    topics = {record.topic for record in sealed_records(Home(tmp_path), "line1")}
    assert topics == {"line1/m/a"}


def test_what_the_broker_drops_stands_in_the_status_file_without_metrics_too(
    tmp_path: Path,
) -> None:
    path = Home(tmp_path).capture / "status.json"

    def told() -> object:
        try:
            return json.loads(path.read_text())["sources"]["mqtt"].get("broker_dropped")
        except OSError:
            return None

    with MosquittoServer(tmp_path / "broker", lines=("sys_interval 1",)) as server:
        # it serves no metrics
        command = [sys.executable, "-m", "tests.servers.buffer", tmp_path, str(server.port)]
        with subprocess.Popen([*command, "line1"]) as buffer:
            try:
                until(lambda: told() == 0)
            finally:
                buffer.terminate()
            assert buffer.wait(DEADLINE_S) == 0


def test_a_line_that_takes_every_topic_does_not_get_the_counter(tmp_path: Path) -> None:
    with MosquittoServer(tmp_path / "broker", lines=("sys_interval 1",)) as server:
        made = plant(server.port, ["line1"])
        everything = made.model_copy(
            update={"lines": (made.lines[0].model_copy(update={"topic": "{machine}/{device}"}),)}
        )
        watch = BrokerWatch(MqttSource(port=server.port))
        with CaptureService(Home(tmp_path), everything) as service, watch:
            until(lambda: service.statistics()["sources"]["mqtt"]["state"] == "connected")
            until(lambda: watch.dropped is not None)
            send(server, "m/a", 3)
            until(lambda: service.statistics()["lines"]["line1"]["captured"] == 3)
    assert TOPIC not in {record.topic for record in sealed_records(Home(tmp_path), "line1")}


def test_a_broker_that_refuses_is_left_alone(tmp_path: Path) -> None:
    with (
        MosquittoServer(tmp_path / "broker", users={"plc": "geheim"}) as server,
        BrokerWatch(MqttSource(port=server.port)) as watch,
    ):
        until(lambda: watch.refused == "Not authorized")
        assert watch.dropped is None
