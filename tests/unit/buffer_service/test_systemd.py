"""systemd is told that the buffer is ready, that it commits, and that it stops."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from buffer_service.service import CaptureService
from buffer_service.systemd import Notifier
from iiot_platform.core.paths import Home
from tests.servers.buffer import plant
from tests.servers.ports import free_port

DEADLINE_S = 60.0
WATCHDOG_S = 0.2


class Listener:
    """What systemd would hear."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def next(self, timeout_s: float = DEADLINE_S) -> str:
        self._socket.settimeout(timeout_s)
        return self._socket.recv(1_024).decode()

    def drain(self) -> None:
        self._socket.settimeout(0)
        while True:
            try:
                self._socket.recv(1_024)
            except BlockingIOError:
                return

    def is_silent(self, seconds: float) -> bool:
        try:
            self.next(seconds)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"@iiot-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")


@pytest.fixture
def listener(address: str) -> Iterator[Listener]:
    one = Listener(address)
    yield one
    one.close()


def environ(address: str, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6)), **more}


def test_every_state_is_one_message(address: str, listener: Listener) -> None:
    notifier = Notifier.from_environ(environ(address, WATCHDOG_USEC="3600000000"))
    notifier.ready()
    notifier.alive()
    notifier.alive()  # too early to say so again
    notifier.stopping()
    assert [listener.next() for _ in range(3)] == ["READY=1", "WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize("address", ["file"], indirect=True)
@pytest.mark.parametrize("more", [{"WATCHDOG_USEC": ""}, {"WATCHDOG_PID": "1"}])
def test_no_sign_of_life_where_nobody_waits_for_one(
    address: str, listener: Listener, more: dict[str, str]
) -> None:
    notifier = Notifier.from_environ(environ(address) | more)
    notifier.alive()
    notifier.ready()
    assert listener.next() == "READY=1"


def test_without_systemd_nothing_is_told(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    for environment in ({}, environ(""), environ(str(tmp_path / "nobody"))):
        notifier = Notifier.from_environ(environment)
        notifier.ready()
    assert [record.getMessage() for record in caplog.records] == [
        "systemd was not told READY=1: [Errno 2] No such file or directory"
    ]


@pytest.mark.parametrize("address", ["file"], indirect=True)
def test_a_listener_that_does_not_read_holds_nothing_up(
    address: str, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier.from_environ(environ(address))
    for _ in range(1_000):
        notifier.ready()
    assert "temporarily unavailable" in caplog.text
    listener.drain()
    notifier.stopping()
    assert listener.next() == "STOPPING=1"


@pytest.mark.parametrize("address", ["file"], indirect=True)
def test_a_commit_thread_that_is_stuck_gives_no_sign_of_life(
    address: str, listener: Listener, tmp_path: Path
) -> None:
    stuck, let_go, turned = threading.Event(), threading.Event(), threading.Event()
    notifier = Notifier.from_environ(environ(address))

    def turn() -> None:
        notifier.alive()
        if stuck.is_set():
            turned.set()
            let_go.wait(DEADLINE_S)

    # the broker is away: that is no reason to start the buffer anew
    home = Home(tmp_path / "var")
    began = time.monotonic()
    with CaptureService(home, plant(free_port(), ["line1"]), turned=turn):
        assert [listener.next() for _ in range(4)] == ["WATCHDOG=1"] * 4
        assert time.monotonic() - began >= 2 * WATCHDOG_S / 4
        stuck.set()
        assert turned.wait(DEADLINE_S)
        listener.drain()
        assert listener.is_silent(2 * WATCHDOG_S)
        stuck.clear()
        let_go.set()
        assert listener.next() == "WATCHDOG=1"
