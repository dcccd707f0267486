"""A real Dagster for tests: code server, pool, daemon and web server on free ports."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import psutil

from iiot_platform.config.settings import Settings
from iiot_platform.orchestration import processes
from iiot_platform.orchestration.instance import CONFIG_FOLDER, prepare_instance
from tests.servers.ports import free_port

START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 60.0
"""A reload of the code location takes ten seconds where the machine is busy."""
POLL_S = 0.2
Seen = TypeVar("Seen")


class NeverError(AssertionError):
    """Something that a test waits for did not come."""


def wait_for(look: Callable[[], Seen], what: str, timeout_s: float) -> Seen:
    """What `look` sees, as soon as that is truthy."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise NeverError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(POLL_S)
    return seen


class Started(NamedTuple):
    """A process and what it is, as `processes.Command` calls it."""

    name: str
    process: subprocess.Popen[bytes]


@dataclass
class Dagster:
    """Running processes; `stop` ends them and says what is left.

    Tests that share one may run in any order: a test that has ended processes leaves it at that,
    and every test begins with `ensure`.

    Attributes:
        pool: options of the pool; None: there is none.
        config: folder that has `dagster.yaml`.
    """

    settings: Settings
    pool: tuple[str, ...] | None = ()
    config: Path = CONFIG_FOLDER
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    code_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)
    started: list[Started] = field(default_factory=list)

    def start(self) -> None:
        prepare_instance(self.settings.home, config=self.config)
        code = processes.code_server(self.settings, self.environ, port=self.code_port)
        process = self.start_command(code)
        if self.pool is not None:
            self.start_pool()
        wait_for(
            lambda: self._alive(process) and processes.code_server_ready(self.code_port),
            f"code server, see {processes.log_path(self.settings.home, code)}",
            START_TIMEOUT_S,
        )
        if self.pool is not None:
            self.wait_for_pool()
        self.start_command(
            processes.webserver(
                self.settings, self.environ, code_port=self.code_port, port=self.port
            )
        )
        self.start_daemon()
        wait_for(lambda: processes.webserver_ready(self.port), "web server", START_TIMEOUT_S)

    def ensure(self) -> None:
        """Starts what a test has ended, if that is the pool or all of them."""
        if not self.started:
            self.start()
        elif self.pool is not None:
            if self.process("pool").poll() is not None:
                self.start_pool()
            self.wait_for_pool()

    def process(self, name: str) -> "subprocess.Popen[bytes]":
        """The newest one that is called so: "code", "pool", "webserver", "daemon", "pacemaker"."""
        newest = (one.process for one in reversed(self.started) if one.name == f"dagster-{name}")
        found = next(newest, None)
        assert found is not None, f"no {name} among {[one.name for one in self.started]}"
        return found

    def kill(self, name: str) -> None:
        process = self.process(name)
        process.kill()
        process.wait()

    def start_pool(self) -> "subprocess.Popen[bytes]":
        return self.start_command(processes.pool(self.settings, self.environ, *(self.pool or ())))

    def wait_for_pool(self) -> None:
        wait_for(lambda: processes.pool_ready(self.settings.home), "pool", START_TIMEOUT_S)

    def start_daemon(self) -> "subprocess.Popen[bytes]":
        return self.start_command(
            processes.daemon(self.settings, self.environ, code_port=self.code_port)
        )

    def start_command(self, command: processes.Command) -> "subprocess.Popen[bytes]":
        path = processes.log_path(self.settings.home, command)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log:
            process = subprocess.Popen(
                command.argv,
                env=dict(command.environ),
                cwd=self.settings.home.root,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.started.append(Started(command.name, process))
        return process

    def _alive(self, process: "subprocess.Popen[bytes]") -> bool:
        if process.poll() is not None:
            raise NeverError(f"{process.args!r} ended with {process.returncode}")
        return True

    def family(self) -> list[psutil.Process]:
        """All processes and everything below them."""
        found: list[psutil.Process] = []
        for one in self.started:
            if one.process.poll() is not None:
                continue  # its id may be another's by now
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = psutil.Process(one.process.pid)
                found += [parent, *parent.children(recursive=True)]
        return found

    def stop(self) -> list[str]:
        """Ends them with SIGTERM, the code server last; returns the commands that outlived them."""
        family = {process: _command(process) for process in self.family()}
        for one in reversed(self.started):
            one.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + STOP_TIMEOUT_S
        for one in self.started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(max(until - time.monotonic(), 0))
        _, left = psutil.wait_procs(family, timeout=max(until - time.monotonic(), 5))
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for one in self.started:
            one.process.wait(STOP_TIMEOUT_S)
        self.started.clear()
        return [family[process] for process in left]

    def graphql(self, query: str, **variables: Any) -> Any:
        return processes.graphql(self.port, query, variables, timeout_s=ANSWER_TIMEOUT_S)


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return f"{process.pid}: {' '.join(process.cmdline())}"
    return f"{process.pid}: ended"


@contextlib.contextmanager
def running(
    settings: Settings,
    *,
    pool: tuple[str, ...] | None = (),
    config: Path = CONFIG_FOLDER,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Dagster]:
    """All of them; `environ` is added to this process's environment."""
    dagster = Dagster(settings, pool=pool, config=config, environ={**os.environ, **(environ or {})})
    try:
        dagster.start()
        yield dagster
    finally:
        dagster.stop()


def shown_key(page: str) -> list[str]:
    """The asset key that Dagster's pages look for at an address: they decode it twice."""
    parts = urlsplit(page).path.split("/")
    assert parts[:2] == ["", "assets"]
    return [unquote(unquote(part)) for part in parts[2:]]
