"""The dashboard of the platform shows data: buffer, exporter and Prometheus are real."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._daemon.types import DaemonHeartbeat
from paho.mqtt.publish import multiple

from iiot_platform.config.plant import Plant
from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.orchestration.access import opened
from iiot_platform.orchestration.instance import prepare_instance
from iiot_platform.orchestration.pool import wire
from tests.reference.grafana_queries import data_panels
from tests.servers import prometheus
from tests.servers.mosquitto import MosquittoServer
from tests.servers.ports import free_port
from tests.servers.prometheus import Prometheus, promtool
from tools.dashboards.__main__ import FOLDER

LINE = "line 1 (test)"
DEADLINE_S = 180.0
LOOK_S = 0.5
"""Batches without a pause would take the machine from those who are scraped."""
BOARD = json.loads((FOLDER / "platform.json").read_text(encoding="utf-8"))
SHIPPED = FOLDER.parents[1] / "prometheus"
POOL_REPORT = {
    "waiting": 1,
    "crews": [
        {"error": None, "retired": False, "workers": [{"run_id": "a", "rss_mb": 100.0}]},
    ],
}


@contextmanager
def pool(home: Home) -> Iterator[None]:
    """Answers at the pool's socket as a pool does that has one worker."""
    with closing(wire.listen(home.dagster)) as server:

        def answer() -> None:
            with suppress(OSError):  # the socket is closed at the end
                while True:
                    line, _ = server.accept()
                    with line:
                        wire.receive(line)
                        line.send(wire.pack(POOL_REPORT))

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(2)
            thread.join()


@contextmanager
def child(name: str, home: Home, environ: Mapping[str, str], *argv: str) -> Iterator[None]:
    with (home.root / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *argv],
            env={**os.environ, **environ, "IIOT_HOME": str(home.root)},
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def scraping(folder: Path, ports: Mapping[str, int]) -> Path:
    """The shipped configuration with the ports of this test, scraping every second."""
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(SHIPPED / "rules.yml")]
    for job in config["scrape_configs"]:
        job["scrape_timeout"] = "1s"
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    promtool("check", "config", path)
    return path


def publish(server: MosquittoServer, count: int) -> None:
    now = now_ms()
    good = [
        b'{"SensorName":"t","SensorValue":%d,"TimeStamp":%d}' % (20 + n % 7, now - n)
        for n in range(count)
    ]
    topic = f"{LINE}/press/t"
    multiple([(topic, body, 1, False) for body in [*good, b"?"]], server.host, server.port)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Engine, Any]]:
    prometheus.require()
    folder = tmp_path_factory.mktemp("prometheus")
    home = Home(folder / "home")
    ports = {"iiot-buffer": free_port(), "iiot-platform": free_port()}
    with ExitStack() as stack:
        broker = MosquittoServer(folder / "broker", lines=("sys_interval 1",))
        stack.enter_context(broker)
        prepare_instance(home)
        with opened(home) as instance:
            beat = DaemonHeartbeat(time.time(), "SENSOR", "id", [])
            instance.run_storage.add_daemon_heartbeat(beat)
        stack.enter_context(pool(home))
        plant = folder / "plant.yaml"
        sources = [{"host": broker.host, "port": broker.port}]
        plant.write_text(yaml.safe_dump({"sources": sources, "lines": [LINE]}))
        environ = {
            "IIOT_PLANT": str(plant),
            "IIOT_BUFFER_METRICS": f"127.0.0.1:{ports['iiot-buffer']}",
            "IIOT_METRICS": f"127.0.0.1:{ports['iiot-platform']}",
        }
        cli = "iiot_platform.cli"
        stack.enter_context(child("buffer", home, environ, cli, "capture"))
        stack.enter_context(child("exporter", home, environ, cli, "metrics", "--serve"))
        server = stack.enter_context(prometheus.server(folder, scraping(folder, ports)))
        engine = Engine(home, Plant.model_validate({"lines": [LINE]}), sinks=("influxdb",))
        stack.callback(engine.close)
        yield server, engine, broker


def queries(board: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Panel and expression of each query, filled in as Grafana does."""
    for panel in data_panels(board):
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "2m").replace("$line", ".*")
            assert "$" not in text, text
            yield panel["title"], text


def test_every_panel_shows_data(scraped: tuple[Prometheus, Engine, MosquittoServer]) -> None:
    server, engine, broker = scraped
    deadline = time.monotonic() + DEADLINE_S
    empty, published = list(queries(BOARD)), 0
    while empty:
        assert time.monotonic() < deadline, empty
        publish(broker, 20)
        published += 21
        engine.run_batch(LINE, run_id="run")
        empty = [(title, text) for title, text in empty if not numbers(server, text)]
        time.sleep(LOOK_S)

    variable = next(v for v in BOARD["templating"]["list"] if v["name"] == "line")
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
    assert match is not None
    assert server.label_values(match[2], match[1]) == [LINE]
    (lag,) = server.query(f'iiot_line_lag_rows{{line="{LINE}"}}')
    assert 0 <= float(lag["value"][1]) <= published
    assert {rule["health"] for rule in server.rules()} == {"ok"}


def numbers(server: Prometheus, text: str) -> list[float]:
    """The values of an expression that are numbers."""
    values = [float(row["value"][1]) for row in server.query(text)]
    return [value for value in values if value == value]  # noqa: PLR0124 - NaN is no number
