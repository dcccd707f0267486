import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from paho.mqtt.client import Client as Client5
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from iiot_platform.client import Client
from iiot_platform.core import schema
from iiot_platform.demo.ports import USUAL
from tests.servers.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
READY_S = 120.0
WHOLE_S = 480.0
STOP_S = 60.0
SERVED = {
    *("readings", "signals", "signal_anomalies", "states", "vibration_anomalies"),
    *("valve_anomalies", "electrical_readings", "electrical_cycles", "line_summary"),
}


def environ(home: Path, **more: str) -> dict[str, str]:
    """For a demo with ports of its own: the usual ones are for whoever sits at this machine."""
    home.mkdir(exist_ok=True)
    (home / "ports.json").write_text(json.dumps({name: free_port() for name in USUAL}))
    return {
        **os.environ,
        "IIOT_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        **more,
    }


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "iiot_platform.cli", "demo", *arguments]


def processes_of(home: Path) -> list[str]:
    """Command lines of processes that were started for a home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("IIOT_HOME") == str(home):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_the_demo_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = subprocess.run(
        demo("--seconds", "15", "--history", "300"),
        env=environ(home, IIOT_DEMO_BROKER="embedded"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=WHOLE_S,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    result: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["problems"] == []
    assert result["published"] > 300 * 15
    assert result["captured"] == result["published"]
    served = result["opcua"]
    assert served["captured"] == served["shown"] > 50
    assert served["written"] + 10 > served["shown"]  # each of the ten nodes shows a value before
    assert served["history"] > 300 * 10
    assert {one["over"] for one in result["lines"].values()} == {"MQTT", "OPC UA"}
    assert all(one["anomalies"] > 0 for one in result["lines"].values())
    captured = result["captured"] + served["captured"] + served["history"]
    repeated = result["quarantined"] + result["duplicates_dropped"]
    assert result["rows"]["readings"] >= captured - repeated
    assert all(result["rows"][table] > 0 for table in SERVED)
    assert result["failed_batches"] == 0
    assert result["batches"] > 0
    assert result["alerts"] >= 0
    assert result["recall_total"] > 0.5
    assert result["false_alarm_rate"] < 0.01
    assert 0 < result["latency_s"]["p50"] <= result["latency_s"]["p95"]
    assert processes_of(home) == []

    client = Client(home)
    counted = sum(len(client.table(line, schema.READINGS.name)) for line in client.lines())
    client.close()
    assert counted == result["rows"]["readings"]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_nothing_survives_the_supervisor(tmp_path: Path, end: signal.Signals) -> None:
    home = tmp_path / "home"
    with subprocess.Popen(
        demo("--history", "30"),
        env=environ(home),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        deadline = time.monotonic() + READY_S
        said = ""
        while "Dagster http://" not in said:
            line = supervisor.stdout.readline()
            assert line, said
            assert time.monotonic() < deadline, said
            said += line
        supervisor.send_signal(end)
        deadline = time.monotonic() + STOP_S
        while processes_of(home):
            assert time.monotonic() < deadline, processes_of(home)
            time.sleep(0.1)
        rest = supervisor.stdout.read()

    if end == signal.SIGINT:
        assert supervisor.returncode == 0, rest
        assert "stopped; the tables stay in" in rest


FAULTY = """
name: faulty
lines:
  line1:
    press:
      oil: {kind: signal, rate_hz: 2, mean: 161.0, sigma: 0.6}
faults:
  - {fault: noise, device: line1/press/oil, start_s: -200, duration_s: 3600, magnitude: 20}
"""


def test_a_fault_is_told_over_mqtt_in_the_terminal_and_on_the_live_page(tmp_path: Path) -> None:
    home, scenario = tmp_path / "home", tmp_path / "scenario.yaml"
    scenario.write_text(FAULTY)
    told: dict[str, dict[str, Any]] = {}
    topic = "iiot/alerts/line1/anomaly_ratio/press/oil"
    with subprocess.Popen(
        demo("--history", "400", "--scenario", str(scenario)),
        env=environ(home),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        said = ""
        while "alert firing: line1 press/oil: " not in said or "Live page" not in said:
            line = supervisor.stdout.readline()
            assert line, said
            said += line
        ports = json.loads((home / "ports.json").read_text())
        client = Client5(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.on_message = lambda _client, _data, message: told.update(
            {message.topic: json.loads(message.payload)}
        )
        client.connect("127.0.0.1", ports["mqtt"])
        client.subscribe("iiot/alerts/#", 1)
        deadline = time.monotonic() + READY_S
        page = ""
        while topic not in told or "line1 press/oil: many anomalies" not in page:
            client.loop(0.2)
            assert time.monotonic() < deadline, (told, said)
            url = f"http://127.0.0.1:{ports['report']}/"
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=60) as answer:
                page = answer.read().decode()
        client.disconnect()
        supervisor.send_signal(signal.SIGINT)
        said += supervisor.stdout.read()
    assert supervisor.returncode == 0, said
    assert processes_of(home) == []
    body = told[topic]
    assert body["state"] == "firing"
    dagster = f"http://127.0.0.1:{ports['dagster']}"
    assert body["look_at"]["run"].startswith(f"{dagster}/runs/")
    assert body["look_at"]["partition"].startswith(f"{dagster}/assets/line1/signal_anomalies?")
    assert f'href="{body["look_at"]["partition"].replace("&", "&amp;")}"' in page
    assert "alerts.log" not in said  # the process has not died
