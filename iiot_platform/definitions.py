"""The code location: what Dagster loads, from the environment.

Loading it puts the plant file in force; the processes of its runs compute under what is in force.
"""

import logging
import os

from dagster import Definitions
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)

from iiot_platform.config.active_plant import activate, plant_in_force
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import now_ms
from iiot_platform.orchestration.build import build_definitions
from iiot_platform.orchestration.partitions import history_start


def _definitions() -> Definitions:
    settings = Settings.from_environ(os.environ)
    if DefinitionsLoadContext.get().load_type == DefinitionsLoadType.RECONSTRUCTION:
        return build_definitions(settings, plant_in_force(settings, os.environ))
    plant, problem = activate(settings, os.environ)
    if problem is not None:
        logging.getLogger(__name__).error("the last valid plant file stays in force: %s", problem)
    start = history_start(settings.home, plant, now_ms())
    return build_definitions(settings, plant, start=start, plant_problem=problem)


defs = _definitions()
