"""The service: takes runs on, gives them to workers, knows what becomes of them."""

import contextlib
import fcntl
import logging
import os
import selectors
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from iiot_platform.config.settings import Settings
from iiot_platform.core.errors import StorageError
from iiot_platform.orchestration.pool import sources, wire
from iiot_platform.orchestration.pool.crew import Crew, Member, names
from iiot_platform.orchestration.pool.journal import Journal
from iiot_platform.orchestration.pool.lineup import Limits, Lineup, PoolRun
from iiot_platform.orchestration.pool.wire import Message

logger = logging.getLogger("iiot_platform.pool")

CANCEL_S: Final = 20.0
"""A run that does not obey its cancellation for so long is killed."""
_FINISH_S: Final = 2.0
_INTERRUPT_S: Final = 1.2
_END_S: Final = 0.3
_TICK_S: Final = 1.0
_RETELL_S: Final = 1.0
_REMEMBERED: Final = 1_000
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0


class PoolRunsError(StorageError):
    """Another service has the instance."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"a pool serves '{folder}' already; stop it first")


class Service:
    """One pool for one instance; one thread, and nothing of Dagster is imported here.

    Args:
        settings: the installation.
        limits: how much runs at once.
    """

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self._limits = limits
        self._instance = settings.home.dagster
        self._code = sources.code()
        self._everything = sources.everything(settings)
        self._lineup = Lineup(limits)
        self._crews: list[Crew] = []
        self._ended: OrderedDict[str, str] = OrderedDict()
        self._failures: dict[str, str] = {}
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._pause_s = _FIRST_PAUSE_S
        self._retry_s = 0.0
        self._tell_s = 0.0
        self._answers: dict[str, Callable[[Message], Message]] = {
            "launch": self._launch,
            "cancel": self._cancel,
            "status": self._status,
            "report": self._report,
        }

    def serve(self) -> None:
        """Serves until SIGTERM.

        Raises:
            PoolRunsError: another service has the instance.
        """
        self._instance.mkdir(parents=True, exist_ok=True)
        with (self._instance / "pool.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PoolRunsError(self._instance) from error
            self._journal = Journal(self._instance)
            for run_id in self._journal.runs():
                self._failures[run_id] = "the pool that had taken this run on has ended"
            waker, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._stop)
            self._selector.register(waker, selectors.EVENT_READ, lambda: os.read(waker, 4096))
            server = wire.listen(self._instance)
            self._selector.register(server, selectors.EVENT_READ, lambda: self._accept(server))
            self._start_crew()
            try:
                while not self._stopping:
                    self._step(_TICK_S)
            finally:
                self._selector.unregister(server)
                server.close()
                (self._instance / wire.SOCKET).unlink(missing_ok=True)
                self._shut_down()

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _step(self, timeout_s: float) -> None:
        """Handles what has come, and does what is due."""
        for key, _ in self._selector.select(timeout_s):
            # what was handled before may have closed it
            if isinstance(key.fileobj, int) or key.fileobj.fileno() >= 0:
                key.data()
        now = time.monotonic()
        self._look_after_crews(now)
        for _, member in names(self._crews):
            if member.cancelled_s is not None and now - member.cancelled_s > CANCEL_S:
                logger.warning("run %s does not end; it is killed", member.order)
                member.send_signal(signal.SIGKILL)
        self._assign(now)

    # what clients ask

    def _accept(self, server: socket.socket) -> None:
        client, _ = server.accept()
        with client, contextlib.suppress(OSError, ValueError, KeyError):
            client.settimeout(_TICK_S)  # a client sends at once, or is none of ours
            message = wire.receive(client)
            if message is not None:
                client.send(wire.pack(self._answers[message["ask"]](message)))

    def _launch(self, message: Message) -> Message:
        run = PoolRun(message["run_id"], bool(message["live"]), time.monotonic())
        if self._known(run.run_id):
            return {"refused": None}
        if message["code"] != self._code.build():
            return {"refused": "it runs other code than this process"}
        crew = self._current_crew()
        if crew is None:
            return {"refused": "its nursery has died and is started again"}
        if crew.error is not None:
            return {"refused": f"the definitions can not be loaded: {crew.error}"}
        refusal = self._lineup.refusal(run)
        if refusal is None:
            self._journal.add(run.run_id)
            self._lineup.add(run)
        return {"refused": refusal}

    def _cancel(self, message: Message) -> Message:
        run_id = message["run_id"]
        if self._lineup.remove(run_id):
            self._failures[run_id] = "cancelled before it began"
            return {"known": True}
        member = self._executing(run_id)
        if member is None:
            return {"known": False}
        member.cancelled_s = member.cancelled_s or time.monotonic()
        member.send_signal(signal.SIGINT)
        return {"known": True}

    def _status(self, message: Message) -> Message:
        run_id = message["run_id"]
        member = self._executing(run_id)
        if member is not None:
            return {"state": "running", "about": f"worker {member.pid}, its run {member.runs + 1}"}
        if self._lineup.holds(run_id):
            return {"state": "waiting", "about": f"one of {len(self._lineup)} that wait"}
        if run_id in self._failures:
            return {"state": "failed", "about": self._failures[run_id]}
        if run_id in self._ended:
            return {"state": "ended", "about": self._ended[run_id]}
        return {"state": "unknown", "about": "the pool does not know this run"}

    def _report(self, _message: Message) -> Message:
        return {
            "waiting": len(self._lineup),
            "failures": self._failures,
            "crews": [crew.report() for crew in self._crews],
        }

    def _known(self, run_id: str) -> bool:
        return self._lineup.holds(run_id) or self._executing(run_id) is not None

    def _executing(self, run_id: str) -> Member | None:
        return next((m for _, m in names(self._crews) if m.run and m.run.run_id == run_id), None)

    # crews

    def _start_crew(self) -> Crew:
        for crew in self._crews:
            crew.retire()
        crew = Crew(self._limits)
        self._crews.append(crew)
        self._selector.register(crew.line, selectors.EVENT_READ, lambda: self._hear_nursery(crew))
        return crew

    def _current_crew(self) -> Crew | None:
        """The crew of what is on disk; None where it can not be had now."""
        crew = self._crews[-1] if self._crews else None
        if crew is None or crew.retired:
            return None
        if not crew.loading and crew.build != self._everything.build():
            logger.info("the sources have changed: new workers")
            return self._start_crew()
        return crew

    def _look_after_crews(self, now: float) -> None:
        for crew in [crew for crew in self._crews if crew.retired and not crew.members]:
            self._forget_crew(crew)
        if not self._crews and now >= self._retry_s and not self._stopping:
            self._retry_s = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._start_crew()

    def _forget_crew(self, crew: Crew) -> None:
        self._crews.remove(crew)
        self._selector.unregister(crew.line)
        crew.end(_TICK_S)

    def _hear_nursery(self, crew: Crew) -> None:
        message = wire.receive(crew.line)
        if message is None:
            self._nursery_died(crew)
        elif message["event"] == "loaded":
            crew.build, crew.error = message["build"], message["error"]
            self._pause_s = _FIRST_PAUSE_S
            if crew.error is not None:
                for run in self._lineup.clear():
                    self._fail(run.run_id, f"the definitions can not be loaded: {crew.error}")
            elif not crew.retired:
                self._hire(crew)
        else:
            member = crew.members.get(message["worker"])
            if member is not None and message["event"] == "forked":
                member.pid = message["pid"]
            elif member is not None:
                member.how = message["how"]
                self._part(crew, member)

    def _nursery_died(self, crew: Crew) -> None:
        """Its workers die with it."""
        crew.process.wait()
        logger.error("the nursery ended with code %s", crew.process.returncode)
        for member in list(crew.members.values()):
            member.gone, member.how = True, "ended with its nursery"
            self._close(member)
            self._part(crew, member)
        crew.retired = True

    def _hire(self, crew: Crew) -> Member:
        member = crew.hire()
        self._selector.register(member.line, selectors.EVENT_READ, lambda: self._hear(crew, member))
        return member

    # workers

    def _hear(self, crew: Crew, member: Member) -> None:
        message = wire.receive(member.line)
        if message is None:
            member.gone = True
            self._close(member)
            self._part(crew, member)
            return
        member.runs, member.rss_mb = message["runs"], message["rss_mb"]
        # what was interrupted may have left things half done
        unwanted = crew.retired or member.cancelled_s is not None
        self._over(message["run_id"], "its worker has done with it")
        member.run = member.order = member.cancelled_s = None
        if message["leaves"]:
            member.leaves = True
        elif unwanted:
            crew.dismiss(member)

    def _close(self, member: Member) -> None:
        if member.line.fileno() >= 0:
            self._selector.unregister(member.line)
            member.line.close()

    def _part(self, crew: Crew, member: Member) -> None:
        """A worker is gone once its line is closed and the nursery has said how it ended."""
        if not member.gone or member.how is None:
            return
        crew.members.pop(member.number, None)
        run = member.run
        if run is not None:
            self._fail(run.run_id, f"its process (pid {member.pid}) {_was(member.how)}")
        elif member.order is not None and member.order in self._failures:
            logger.error("worker %s could not tell Dagster of a run: %s", member.pid, member.how)
            self._tell_s = time.monotonic() + _RETELL_S

    def _fail(self, run_id: str, reason: str) -> None:
        logger.warning("run %s: %s", run_id, reason)
        self._failures[run_id] = reason

    def _over(self, run_id: str, about: str) -> None:
        self._failures.pop(run_id, None)
        self._journal.remove(run_id)
        self._ended[run_id] = about
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def _assign(self, now: float) -> None:
        """Gives workers what there is to do; what has failed is told first."""
        crew = self._crews[-1] if self._crews else None
        if crew is None or crew.loading or crew.retired:
            return
        telling = {member.order for _, member in names(self._crews)}
        for run_id, reason in list(self._failures.items()):
            if run_id not in telling and now >= self._tell_s:
                member = crew.idle() or self._hire(crew)
                member.tell("fail", run_id, f"The warm pool: {reason}.")
        if self._stopping or crew.error is not None:
            return
        while (run := self._lineup.take(self._running(), now)) is not None:
            member = crew.idle() or self._hire(crew)
            member.run = run
            member.tell("execute", run.run_id)

    def _running(self) -> list[PoolRun]:
        return [run for crew in self._crews for run in crew.running]

    # the end

    def _shut_down(self) -> None:
        """Runs get a moment to finish, then are interrupted, then die with their nursery."""
        for run in self._lineup.clear():
            self._fail(run.run_id, "it is stopping, and the run had not begun")
        self._until(lambda: not self._failures and not self._running(), _FINISH_S)
        for _, member in names(self._crews):
            if member.run is not None:
                member.send_signal(signal.SIGINT)
        self._until(lambda: not self._failures and not self._running(), _INTERRUPT_S)
        for crew in self._crews:
            crew.retire()
        self._until(lambda: not any(crew.members for crew in self._crews), _END_S)
        for crew in self._crews:
            crew.end(_END_S)

    def _until(self, over: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not over() and time.monotonic() < deadline:
            self._step(0.05)


def _was(how: str) -> str:
    return f"was {how}" if how.startswith("killed") else how
