"""The process that has everything loaded and nothing open, and forks workers that find it so.

It must have one thread when it forks: a lock that another thread holds stays locked for ever in
the copy.
"""

import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from types import ModuleType
from typing import Final

from iiot_platform.config.settings import Settings
from iiot_platform.orchestration.pool import parenthood, sources, wire
from iiot_platform.orchestration.pool.lineup import Limits

ENVIRON: Final = {
    # pyarrow's allocator and numpy's linear algebra start threads when they are imported
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}
_WARM: Final = (
    # what a run imports only when it needs it
    *("dagster._grpc.impl", "dagster._core.execution.api", "dagster._core.executor.in_process"),
    *("iiot_platform.orchestration.storage", "iiot_platform.orchestration.compute_logs"),
    *("pyarrow.parquet", "pyarrow.compute", "pyarrow.dataset", "duckdb", "numpy", "sqlalchemy"),
    *("sqlite3", "alembic.migration", "alembic.script"),
)
_SQLITE: Final = ("iiot_platform.orchestration.storage_sqlite", "sqlalchemy.dialects.sqlite")
_POSTGRES: Final = (
    *("iiot_platform.orchestration.storage_postgres", "sqlalchemy.dialects.postgresql.psycopg2"),
    "psycopg2",
)


class Nursery:
    """Forks a worker for every line that it is sent.

    Args:
        service: the line to the service; its end is this process's end.
        limits: when a worker is to be replaced.
    """

    def __init__(self, service: socket.socket, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._children: dict[int, int] = {}
        self._worker: ModuleType | None = None

    def load(self, settings: Settings) -> None:
        """Imports everything, and tells the service which build that is.

        Definitions that can not be loaded are told too: the workers can still say so in runs.
        """
        kept_in = _SQLITE if settings.home.database is None else _POSTGRES
        for name in (*_WARM, *kept_in):
            importlib.import_module(name)
        self._worker = importlib.import_module("iiot_platform.orchestration.pool.worker")
        on_disk = sources.everything(settings)
        build, error = on_disk.build(), None
        try:
            self._worker.load_definitions()
        except Exception as caught:  # noqa: BLE001 - a process boundary; it goes to the service
            traceback.print_exc()
            error = f"{type(caught).__name__}: {caught}"
        if on_disk.build() != build:  # it changed meanwhile: which of the two it is can not be said
            sys.exit("the sources changed while they were loaded")
        gc.collect()
        gc.freeze()  # a collection in a worker would copy every page
        self._service.send(wire.pack({"event": "loaded", "build": build, "error": error}))

    def serve(self) -> None:
        """Forks and buries until the service has gone, and takes what is left along."""
        waker, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        while True:
            ready, _, _ = select.select([self._service.fileno(), waker], [], [])
            if waker in ready:
                os.read(waker, 4096)
                self._bury()
            if self._service.fileno() in ready:
                packet, lines, _, _ = socket.recv_fds(self._service, wire.MAX_PACKET, 1)
                if not packet:
                    self._close()
                    return
                self._fork(int(packet), socket.socket(fileno=lines[0]), (waker, alarm))

    def _fork(self, number: int, line: socket.socket, ours: tuple[int, ...]) -> None:
        count = parenthood.threads()
        if count != 1:
            raise RuntimeError(f"the nursery has {count} threads and can not fork")
        parent = os.getpid()
        pid = os.fork()
        if pid:
            line.close()
            self._children[pid] = number
            self._service.send(wire.pack({"event": "forked", "worker": number, "pid": pid}))
            return
        code = 1
        try:
            parenthood.end_with(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._service.close()
            for descriptor in ours:
                os.close(descriptor)
            if self._worker is not None:
                self._worker.work(line, self._limits)
            code = 0
        except BaseException:  # noqa: BLE001 - a process boundary
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # what the nursery would do at its end is not the worker's

    def _close(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        while self._children:
            self._children.pop(os.wait()[0])

    def _bury(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            number = self._children.pop(pid)
            self._service.send(
                wire.pack({"event": "ended", "worker": number, "how": parenthood.ending(status)})
            )


def run(line: socket.socket, settings: Settings, limits: Limits) -> None:
    """Be the nursery of a service."""
    parenthood.name("iiot-nursery")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # it ends with the service, after its workers
    nursery = Nursery(line, limits)
    nursery.load(settings)
    nursery.serve()
    os._exit(0)  # there is nothing to put in order, and libraries would complain at length
