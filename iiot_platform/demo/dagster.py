"""Dagster's processes as the demo's children, each started when those before are ready."""

import sys
from collections.abc import Callable, Iterator
from typing import Final

import psutil

from iiot_platform.demo.children import Child, Command
from iiot_platform.demo.installation import DemoInstallation
from iiot_platform.orchestration import processes
from iiot_platform.orchestration.instance import prepare_instance
from iiot_platform.orchestration.naming import KIND_TAG, LIVE

_FAILED_RUNS: Final = """
query($filter: RunsFilter!) {
  runsOrError(filter: $filter, limit: 10000) { ... on Runs { results { runId } } }
}
"""


class DagsterChildren:
    """Code server and pool, then daemon and web server.

    Args:
        demo: what is started.
        make: makes a child of a command.
    """

    def __init__(self, demo: DemoInstallation, make: Callable[[Command], Child]) -> None:
        self._demo = demo
        self._make = make
        self._code_port = demo.ports["dagster-code"]
        self._port = demo.ports["dagster"]
        self._code: Child | None = None
        self._pool: Child | None = None
        self._others: list[Child] = []
        self._pacemaker: Child | None = None
        self.ready = False

    def start(self) -> None:
        """Start the code server and the pool."""
        prepare_instance(self._demo.settings.home)
        self._code = self._child(
            processes.code_server(self._demo.settings, self._demo.environ, port=self._code_port)
        )
        if sys.platform == "linux":  # elsewhere every run has a process of its own
            self._pool = self._child(processes.pool(self._demo.settings, self._demo.environ))

    def advance(self) -> None:
        """Start what can be started now, and see whether all of it is ready."""
        demo = self._demo
        if self.ready or self._code is None or not self._code.running:
            return
        if not self._others:
            if processes.code_server_ready(self._code_port) and self._pool_ready():
                self._others = [
                    self._child(
                        processes.daemon(demo.settings, demo.environ, code_port=self._code_port)
                    ),
                    self._child(
                        processes.webserver(
                            demo.settings,
                            demo.environ,
                            code_port=self._code_port,
                            port=self._port,
                        )
                    ),
                ]
        else:
            self.ready = processes.webserver_ready(self._port)
            if self.ready and demo.plant.batches.live_interval_s is not None:
                self._pacemaker = self._child(
                    processes.pacemaker(demo.settings, demo.environ, port=self._port)
                )

    def watch(self) -> None:
        """Start again what has died."""
        for child in self.children():
            child.watch()

    def children(self) -> Iterator[Child]:
        """Those that were started: those that start runs, then the pool and the code server."""
        if self._pacemaker is not None:
            yield self._pacemaker
        yield from self._others
        if self._pool is not None:
            yield self._pool
        if self._code is not None:
            yield self._code

    def daemon(self) -> list[Child]:
        """Those that start runs."""
        return [*self._others[:1], *filter(None, [self._pacemaker])]

    def working(self) -> list[psutil.Process]:
        """Processes of runs."""
        return [] if self._code is None else self._code.family()[1:]

    def _pool_ready(self) -> bool:
        """True also where it has died: runs then have processes of their own."""
        pool = self._pool
        return pool is None or not pool.running or processes.pool_ready(self._demo.settings.home)

    def failed_batches(self, since_ms: int) -> int | None:
        """Live runs that have failed since a time; None where the web server does not say."""
        tags = [{"key": KIND_TAG, "value": LIVE}]
        wanted = {"statuses": ["FAILURE"], "tags": tags, "createdAfter": since_ms / 1_000}
        try:
            answer = processes.graphql(self._port, _FAILED_RUNS, {"filter": wanted})
            return len(answer["runsOrError"]["results"])
        except (OSError, RuntimeError, KeyError):
            return None

    def _child(self, command: processes.Command) -> Child:
        child = self._make(Command(command.name, command.argv, command.environ))
        child.start()
        return child
