import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from iiot_platform.demo import children
from iiot_platform.demo.children import Child, Command, stop_together

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


def test_who_does_not_obey_is_killed(tmp_path: Path) -> None:
    # by a process of its own: whatever else this one has started would be ended too
    _run_parent(
        tmp_path,
        IGNORES,
        "until = time.monotonic() + 60",
        "while not child.log.read_text() and time.monotonic() < until: time.sleep(0.01)",
        "stop_together([child], time.monotonic() + 0.1)",
        "assert child.running",
        "assert reap(0.1) == 1",
    )
    until(lambda: _is_gone(tmp_path), "the child's end")


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    _run_parent(tmp_path, WAITS, "os.kill(os.getpid(), signal.SIGKILL)", code=-signal.SIGKILL)
    until(lambda: _is_gone(tmp_path), "the child's end")


def _run_parent(folder: Path, child: str, *then: str, code: int = 0) -> None:
    """Start a child in a process of its own, which then does more."""
    program = (
        "import os, signal, sys, time",
        "from pathlib import Path",
        "from iiot_platform.demo.children import Child, Command, reap, stop_together",
        f"command = Command('c', (sys.executable, '-c', {child!r}), dict(os.environ))",
        f"child = Child(command, Path({str(folder)!r}), print)",
        "child.start()",
        "Path('pid').write_text(str(child.pid))",
        *then,
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = psutil.Popen([sys.executable, "-c", "\n".join(program)], cwd=folder, env=environ)
    assert parent.wait(TIMEOUT_S) == code


def _is_gone(folder: Path) -> bool:
    pid = int((folder / "pid").read_text())
    return not psutil.pid_exists(pid) or _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
