"""The plant in force: the last valid plant file, so that a broken edit stops nothing.

The code location checks the plant file when it is loaded and keeps a copy of its text below the
home folder; runs compute under the copy. The text is kept as it stands: `${NAME}` stays a name,
and secrets are read anew from the environment or their files.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from iiot_platform.config.errors import PlantFileError
from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.errors import ConfigError
from iiot_platform.core.paths import Home

_NAME: Final = "plant.active.yaml"


class PlantInForce(NamedTuple):
    """A plant, and why it is not the one that the plant file describes; None: it is."""

    plant: Plant
    problem: ConfigError | None


def active_path(home: Home) -> Path:
    """Where the copy of the last valid plant file is kept."""
    return home.root / _NAME


def activate(settings: Settings, environ: Mapping[str, str]) -> PlantInForce:
    """Puts the plant file in force; where it is broken, the last valid one stays in force.

    Raises:
        PlantFileError: the plant file is broken, and there is no valid one before it.
    """
    found = examine(settings, environ)
    if found.problem is not None:
        return found
    return PlantInForce(_keep(settings, active_path(settings.home), environ), None)


def examine(settings: Settings, environ: Mapping[str, str]) -> PlantInForce:
    """The plant file's plant, or the one in force where the file is broken; changes nothing.

    Raises:
        PlantFileError: the plant file is broken, and there is no valid one before it.
    """
    try:
        return PlantInForce(load_plant(settings.plant_path, environ), None)
    except PlantFileError as problem:
        if not active_path(settings.home).exists():
            raise
        return PlantInForce(plant_in_force(settings, environ), problem)


def plant_in_force(settings: Settings, environ: Mapping[str, str]) -> Plant:
    """The plant that was last put in force; the plant file's where none ever was.

    Raises:
        PlantFileError: it can not be read.
    """
    kept = active_path(settings.home)
    if not kept.exists():
        return load_plant(settings.plant_path, environ)
    return load_plant(kept, environ, folder=settings.plant_path.parent)


def _keep(settings: Settings, kept: Path, environ: Mapping[str, str]) -> Plant:
    """Copies the plant file whole or not at all; what was checked is what is kept."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=kept.parent, prefix=f".{kept.name}.")
    copy = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(settings.plant_path.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        plant = load_plant(copy, environ, folder=settings.plant_path.parent)
        copy.replace(kept)
    finally:
        copy.unlink(missing_ok=True)
    return plant
