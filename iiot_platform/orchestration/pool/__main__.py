"""`python -m iiot_platform.orchestration.pool`: the pool of the installation of the environment."""

import argparse
import logging
import os
import socket
from dataclasses import fields

from iiot_platform.config.active_plant import activate, active_path
from iiot_platform.config.settings import Settings
from iiot_platform.core.errors import ConfigError
from iiot_platform.orchestration.pool import parenthood
from iiot_platform.orchestration.pool.lineup import Limits
from iiot_platform.orchestration.pool.nursery import run
from iiot_platform.orchestration.pool.service import Service


def main() -> None:
    """Be the service, or the nursery that the service starts."""
    parser = argparse.ArgumentParser(description="Executes Dagster's runs in warm processes.")
    for field in fields(Limits):
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=int, default=field.default)
    parser.add_argument("--nursery", type=int, help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    line = given.pop("nursery")
    limits = Limits(**given)
    settings = Settings.from_environ(os.environ)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("iiot_platform").setLevel(logging.INFO)
    if line is not None:
        run(socket.socket(fileno=line), settings, limits)
        return
    parenthood.name("iiot-pool")
    if not active_path(settings.home).exists():
        _put_in_force(settings)
    Service(settings, limits).serve()


def _put_in_force(settings: Settings) -> None:
    """Puts the plant file in force before the code location does, so that nothing loads twice."""
    try:
        activate(settings, os.environ)
    except ConfigError:
        logging.getLogger("iiot_platform").exception("no plant file is in force yet")


if __name__ == "__main__":
    main()
