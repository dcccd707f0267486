"""The code location: what Dagster loads, from the environment."""

import os

from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.orchestration.build import build_definitions

_settings = Settings.from_environ(os.environ)

defs = build_definitions(_settings, load_plant(_settings.plant_path, os.environ))
