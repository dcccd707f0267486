"""The buffer's process as its unit starts it."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.ports import free_port
from tests.servers.stack import DEPLOY, ROOT

ANSWER_S = 60.0


def test_the_process_tells_its_start_its_life_and_its_end(tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd" / "iiot-buffer.service").read_text(encoding="utf-8")
    assert "\nType=notify\n" in unit
    watchdog = re.search(r"^WatchdogSec=(\d+)$", unit, re.MULTILINE)
    assert watchdog is not None
    command = re.search(r"^ExecStart=/opt/iiot/venv/bin/iiot (.*)$", unit, re.MULTILINE)
    assert command is not None
    plant = tmp_path / "plant.yaml"
    plant.write_text(
        f"lines: [line1]\nsources: [{{name: a, host: 127.0.0.1, port: {free_port()}}}]\n", "utf-8"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(ANSWER_S)
        process = subprocess.Popen(
            [sys.executable, "-m", "iiot_platform.cli", *command[1].split()],
            env={
                **os.environ,
                "IIOT_HOME": str(tmp_path / "var"),
                "IIOT_PLANT": str(plant),
                "IIOT_BUFFER_METRICS": "off",
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                # as systemd would, so that several beats come soon
                "WATCHDOG_USEC": str(int(watchdog[1]) * 10_000),
                "PYTHONPATH": str(ROOT),
            },
            stderr=subprocess.DEVNULL,
        )
        try:
            heard = []
            while "READY=1" not in heard or heard.count("WATCHDOG=1") < 2:
                heard.append(systemd.recv(64).decode())
            assert set(heard) == {"READY=1", "WATCHDOG=1"}
            process.send_signal(signal.SIGTERM)
            while systemd.recv(64) != b"STOPPING=1":
                pass
            assert process.wait(ANSWER_S) == 0
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("line", ["WatchdogSec=60", "TimeoutStartSec=infinity"])
def test_the_unit_waits_longer_than_any_commit_takes(line: str) -> None:
    unit = (DEPLOY / "systemd" / "iiot-buffer.service").read_text(encoding="utf-8")
    assert f"\n{line}\n" in unit
