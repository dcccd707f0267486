"""Runs the buffer: `python -m buffer_service --plant plant.yaml --home var`."""

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from buffer_service.log.segment_file import Steps, no_step
from buffer_service.service import CaptureService
from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.core.errors import PlatformError
from iiot_platform.core.paths import Home

logger = logging.getLogger("buffer_service")

_CHECK_S = 1.0


def serve(home: Home, plant: Plant, *, steps: Steps = no_step) -> int:
    """Capture until SIGTERM or SIGINT; returns the exit code."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        service = CaptureService(home, plant, steps=steps)
    except PlatformError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all
        return 1
    with service:
        logger.info("capturing %s into %s", ", ".join(plant.line_names), home.capture)
        while not stopping.is_set():
            if service.wait(0):
                logger.critical("the commit thread ended; see the error above")
                return 1
            stopping.wait(_CHECK_S)
        logger.info("stopping")
    return 0


def main() -> int:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser("buffer_service", description=__doc__)
    parser.add_argument("--plant", type=Path, default=Path("plant.yaml"), help="the plant file")
    parser.add_argument("--home", type=Path, default=Path("var"), help="where all state lives")
    arguments = parser.parse_args()
    try:
        plant = load_plant(arguments.plant, os.environ)
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return serve(Home(arguments.home.absolute()), plant)


if __name__ == "__main__":
    sys.exit(main())
