import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from iiot_platform.demo import children
from iiot_platform.demo.children import Child, Command, reap, stop_together

TIMEOUT_S = 60.0
WAITS = "import time; time.sleep(600)"
IGNORES = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); time.sleep(600)"
)


def until(seen: Callable[..., object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not seen():
        assert time.monotonic() < deadline, f"{what}: not within {TIMEOUT_S} s"
        time.sleep(0.01)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path: Path, said: list[str]) -> Iterator[Callable[..., Child]]:
    made: list[Child] = []

    def child(code: str, name: str = "child", *, restarts: bool = True) -> Child:
        command = Command(name, (sys.executable, "-c", code), dict(os.environ), restarts)
        made.append(Child(command, tmp_path, said.append))
        return made[-1]

    yield child
    for one in made:
        for process in one.family():
            process.kill()
        until(lambda child=one: not child.running, "its end")


def test_a_child_that_dies_is_started_again(
    make: Callable[..., Child], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "_FIRST_PAUSE_S", 0.01)
    child = make("import sys; sys.exit('no disk')")
    child.start()

    until(lambda: child.watch() or child.restarts >= 2, "two restarts")

    assert "child ended with code 1; starting it again in 0.01 s" in said[0]
    assert "no disk" in said[0]
    assert "in 0.02 s" in said[1]


def test_a_child_that_is_stopped_stays_so(make: Callable[..., Child], said: list[str]) -> None:
    child = make(WAITS)
    child.start()
    assert child.pid is not None

    stop_together([child], time.monotonic() + TIMEOUT_S)
    child.watch()

    assert not child.running
    assert said == []


def test_a_child_leads_a_group_of_its_own_and_logs(make: Callable[..., Child]) -> None:
    child = make("import os, time; print(os.getpgrp(), flush=True); time.sleep(600)")
    child.start()
    until(child.log.read_text, "its output")

    assert int(child.log.read_text()) == child.pid != os.getpgrp()
    stop_together([child], time.monotonic() + TIMEOUT_S)


def test_a_log_begins_anew(make: Callable[..., Child]) -> None:
    first = make("print('old')")
    first.start()
    until(lambda: first.returncode == 0, "its end")

    assert make("").log.read_text() == ""


def test_who_does_not_obey_is_killed(make: Callable[..., Child]) -> None:
    child = make(IGNORES)
    child.start()
    until(child.log.read_text, "its output")
    stop_together([child], time.monotonic() + 0.1)
    assert child.running
    assert child.pid is not None
    process = psutil.Process(child.pid)

    reap(0.1)

    until(lambda: child.returncode is not None, "its end")
    assert not process.is_running()


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys, signal; from pathlib import Path;"
        "from iiot_platform.demo.children import Child, Command;"
        f"child = Child(Command('c', (sys.executable, '-c', {WAITS!r}), dict(os.environ)),"
        f" Path({str(tmp_path)!r}), print);"
        "child.start(); Path('pid').write_text(str(child.pid));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = psutil.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environ)
    parent.wait(TIMEOUT_S)
    pid = int((tmp_path / "pid").read_text())

    until(lambda: not psutil.pid_exists(pid) or _is_zombie(pid), "the child's end")


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
