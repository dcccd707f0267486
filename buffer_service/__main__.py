"""Runs the buffer: `python -m buffer_service --plant plant.yaml --home var`."""

import argparse
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from buffer_service.broker_watch import BrokerWatch
from buffer_service.log.segment_file import Steps, no_step
from buffer_service.metrics import BufferCollector, unhealthy, unready
from buffer_service.service import CaptureService
from buffer_service.systemd import Notifier
from iiot_platform.config.endpoint import EndpointError, EndpointSettings
from iiot_platform.config.plant import MqttSource, Plant
from iiot_platform.config.plant_watch import PlantWatch
from iiot_platform.config.settings import Settings
from iiot_platform.core.errors import PlatformError
from iiot_platform.core.paths import Home
from iiot_platform.metrics.endpoint import MetricsServer

logger = logging.getLogger("buffer_service")

_CHECK_S = 1.0
_COLLECT_AT = 50_000
"""Objects that came and did not go before cycles are looked for: more than a window of messages."""


def serve(
    home: Home,
    plant: Plant,
    *,
    steps: Steps = no_step,
    metrics: EndpointSettings | None = None,
    watch: PlantWatch | None = None,
    systemd: Notifier | None = None,
) -> int:
    """Capture until SIGTERM or SIGINT; returns the exit code.

    Args:
        home: where the capture log lies.
        plant: sources and lines.
        steps: told each step that a crash may follow; for tests.
        metrics: where metrics and health are served; None: nowhere.
        watch: follows the plant file, at once upon SIGHUP; None: the plant stays as it is.
        systemd: is told once messages can be captured, that commits go on, and the end.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    hung_up = threading.Event()
    if watch is not None:
        signal.signal(signal.SIGHUP, lambda *_: hung_up.set())
    systemd = systemd or Notifier()
    try:
        service = CaptureService(home, plant, steps=steps, turned=systemd.alive)
    except PlatformError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all
        return 1
    with service, _told(service, home, plant, metrics):
        # What was imported stays, and records have no cycles: looking through both again and
        # again would cost a third of the time of a message.
        gc.freeze()
        gc.set_threshold(_COLLECT_AT)
        logger.info("capturing %s into %s", ", ".join(plant.line_names), home.capture)
        systemd.ready()
        while not stopping.is_set():
            if service.wait(0):
                logger.critical("the commit thread ended; see the error above")
                return 1
            if watch is not None:
                _follow(service, watch, hung_up)
            stopping.wait(_CHECK_S)
        logger.info("stopping")
        systemd.stopping()
    return 0


def _follow(service: CaptureService, watch: PlantWatch, hung_up: threading.Event) -> None:
    """Hand a plant that has changed to the service."""
    at_once = hung_up.is_set()
    hung_up.clear()
    changed = watch.look(at_once=at_once)
    service.counts.plant_problem = watch.problem
    if changed is not None and changed != service.plant:
        service.follow(changed)
    elif changed is not None or at_once:
        logger.info("the plant file was read again: nothing changes")


@contextmanager
def _told(
    service: CaptureService, home: Home, plant: Plant, settings: EndpointSettings | None
) -> Iterator[None]:
    """Ask brokers and serve metrics meanwhile; where that can not be, capturing goes on.

    What brokers say they have dropped stands in the status file, metrics or not.
    """
    watches = [BrokerWatch(s) for s in plant.sources if isinstance(s, MqttSource)]
    service.counts.broker_drops = lambda: {
        watch.source: watch.dropped for watch in watches if watch.dropped is not None
    }
    with ExitStack() as stack:
        for watch in watches:
            stack.enter_context(watch)
        if settings is not None:
            try:
                server = MetricsServer(
                    settings,
                    BufferCollector(service, home, watches),
                    healthy=lambda: unhealthy(service),
                    ready=lambda: unready(service),
                )
            except EndpointError as error:
                logger.error("%s (IIOT_BUFFER_METRICS)", error)  # noqa: TRY400 - says it all
            else:
                stack.enter_context(server)
                logger.info("metrics: %s/metrics", server.url)
        yield


def main() -> int:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser("buffer_service", description=__doc__)
    parser.add_argument("--plant", type=Path, default=Path("plant.yaml"), help="the plant file")
    parser.add_argument("--home", type=Path, default=Path("var"), help="where all state lives")
    arguments = parser.parse_args()
    try:
        watch = PlantWatch(arguments.plant, os.environ)
        plant = watch.load()
        metrics = Settings.from_environ(os.environ).buffer_metrics
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return serve(
        Home(arguments.home.absolute()),
        plant,
        metrics=metrics,
        watch=watch,
        systemd=Notifier.from_environ(os.environ),
    )


if __name__ == "__main__":
    sys.exit(main())
