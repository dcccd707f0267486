"""What the demo shows beside Dagster: the live page, the platform's metrics, alerts."""

import sys
from collections.abc import Callable, Iterator
from typing import Final

from iiot_platform.demo.alerts import ALERTS
from iiot_platform.demo.children import Child, Command
from iiot_platform.demo.installation import DemoInstallation
from iiot_platform.demo.ports import HOST

_CLI: Final = (sys.executable, "-m", "iiot_platform.cli")
_NICE: Final = 5


class Pages:
    """The processes that look at the tables; pages work only while somebody looks at them.

    Args:
        demo: what is started.
        make: makes a child of a command.
    """

    def __init__(self, demo: DemoInstallation, make: Callable[[Command], Child]) -> None:
        self._demo = demo
        self._make = make
        self._children: list[Child] = []

    def advance(self, *, computed: bool) -> None:
        """Start them with the first results: nothing is to be seen before."""
        if computed and not self._children:
            self._children = [self._make(command) for command in self._commands()]
            for child in self._children:
                child.start()

    def watch(self) -> None:
        """Start again what has died."""
        for child in self._children:
            child.watch()

    def children(self) -> list[Child]:
        """Those that were started."""
        return self._children

    def addresses(self) -> str:
        """Where they are."""
        ports = self._demo.ports
        return (
            f"Live page (no Grafana needed) http://{HOST}:{ports['report']}/"
            f" | metrics http://{HOST}:{ports['metrics']}/metrics,"
            f" of the buffer http://{HOST}:{ports['buffer-metrics']}/metrics"
            f" | alerts: MQTT {self._demo.plant.alerts.mqtt.root}#, iiot alerts list"
        )

    def _commands(self) -> Iterator[Command]:
        environ, ports = self._demo.environ, self._demo.ports
        report = (*_CLI, "report", "--serve", "--port", str(ports["report"]))
        yield Command("report", report, environ, nice=_NICE)
        yield Command("metrics", (*_CLI, "metrics", "--serve"), environ, nice=_NICE)
        yield Command("alerts", ALERTS, environ, nice=_NICE)
