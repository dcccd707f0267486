"""`python -m iiot_platform.orchestration.pool`: the pool of the installation of the environment."""

import argparse
import logging
import os
import socket
from dataclasses import fields

from iiot_platform.config.settings import Settings
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
        run(socket.socket(fileno=line), settings.plant_path, settings.home.dagster, limits)
        return
    parenthood.name("iiot-pool")
    Service(settings.plant_path, settings.home.dagster, limits).serve()


if __name__ == "__main__":
    main()
