"""The service's side of the nursery and its workers: lines, process ids, what each is doing."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from iiot_platform.orchestration.pool import nursery, parenthood, wire
from iiot_platform.orchestration.pool.lineup import Limits, PoolRun

_COMMAND: Final = (sys.executable, "-m", "iiot_platform.orchestration.pool", "--nursery")
_numbers = itertools.count(1)


@dataclass(eq=False)
class Member:
    """One worker.

    Attributes:
        number: what it is called.
        line: to talk to it.
        pid: known once it was forked.
        run: the one that it executes.
        order: run id of what it was told last and has not done yet.
        runs: executed so far.
        rss_mb: resident memory after the last run.
        cancelled_s: monotonic time at which its run was cancelled.
        how: how it ended.
        gone: True once its line is closed.
    """

    number: int
    line: socket.socket
    pid: int | None = None
    run: PoolRun | None = None
    order: str | None = None
    runs: int = 0
    rss_mb: float = 0.0
    cancelled_s: float | None = None
    how: str | None = None
    gone: bool = False
    leaves: bool = False

    @property
    def idle(self) -> bool:
        """True where it can be given something."""
        return self.order is None and not self.leaves and not self.gone

    def tell(self, order: str, run_id: str, message: str = "") -> None:
        """Gives it something to do."""
        self.order = run_id
        with contextlib.suppress(OSError):  # it has died: its line says so too
            self.line.send(wire.pack({"order": order, "run_id": run_id, "message": message}))

    def send_signal(self, number: signal.Signals) -> None:
        """Signals the process, if it is known and lives."""
        if self.pid is not None and self.how is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass(eq=False)
class Crew:
    """A nursery and the workers that it has forked: all of one build.

    Attributes:
        limits: of the pool.
        build: what was loaded; None while it is loading.
        error: why the definitions could not be loaded.
        members: its workers that live.
        retired: True once another crew has taken over.
    """

    limits: Limits
    build: str | None = None
    error: str | None = None
    members: dict[int, Member] = field(default_factory=dict)
    retired: bool = False

    def __post_init__(self) -> None:
        """Starts the nursery."""
        self.line, theirs = wire.pair()
        with theirs:
            options = [f"--{name.replace('_', '-')}={n}" for name, n in asdict(self.limits).items()]
            parent = os.getpid()
            self.process = subprocess.Popen(  # noqa: S603 - our own command line
                (*_COMMAND, str(theirs.fileno()), *options),
                env={**os.environ, **nursery.ENVIRON},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                preexec_fn=lambda: parenthood.end_with(parent),  # noqa: PLW1509 - one thread
            )

    @property
    def loading(self) -> bool:
        """True until it is known what was loaded."""
        return self.build is None

    @property
    def running(self) -> list[PoolRun]:
        """The runs that its workers execute."""
        return [member.run for member in self.members.values() if member.run is not None]

    def idle(self) -> Member | None:
        """A worker with nothing to do: the one that has done most, so that few are needed."""
        free = [member for member in self.members.values() if member.idle]
        return max(free, key=lambda member: member.runs, default=None)

    def hire(self) -> Member:
        """A new worker; it can be told something at once and does it once it is there."""
        ours, theirs = wire.pair()
        with theirs:
            member = Member(next(_numbers), ours)
            self.members[member.number] = member
            with contextlib.suppress(OSError):  # the nursery has died: its line says so too
                socket.send_fds(self.line, [str(member.number).encode()], [theirs.fileno()])
        return member

    def retire(self) -> None:
        """Lets idle workers go; the others go when they are done."""
        self.retired = True
        for member in self.members.values():
            if member.idle:
                self.dismiss(member)

    def dismiss(self, member: Member) -> None:
        """Tells a worker that there is nothing more to do."""
        member.leaves = True
        with contextlib.suppress(OSError):
            member.line.shutdown(socket.SHUT_WR)

    def end(self, grace_s: float) -> None:
        """Ends the nursery; its workers end with it."""
        self.line.close()
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for member in self.members.values():
            member.line.close()

    def report(self) -> Mapping[str, Any]:
        """The crew in figures."""
        return {
            "pid": self.process.pid,
            "build": self.build,
            "error": self.error,
            "retired": self.retired,
            "workers": [_report(member) for member in self.members.values()],
        }


def _report(member: Member) -> Mapping[str, Any]:
    return {
        "pid": member.pid,
        "run_id": member.run and member.run.run_id,
        "runs": member.runs,
        "rss_mb": member.rss_mb,
    }


def names(crews: list[Crew]) -> Iterator[tuple[Crew, Member]]:
    """Every worker with its crew."""
    for crew in crews:
        for member in crew.members.values():
            yield crew, member
