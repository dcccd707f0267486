"""Dagster's instance folder and its configuration."""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from iiot_platform.config.settings import DATABASE_URL, Settings
from iiot_platform.core.errors import ConfigError
from iiot_platform.core.paths import Home

LOCATION: Final = "iiot"
"""Name of the code location; the state of sensors hangs on it."""

HOME_VARIABLE: Final = "DAGSTER_HOME"
_CHECKOUT: Final = Path(__file__).resolve().parents[2] / "dagster_home"
CONFIG_FOLDER: Final = _CHECKOUT if _CHECKOUT.is_dir() else Path(sys.prefix, "share/iiot")
"""`dagster.yaml` of the checkout, or the one that was installed with the package."""


class InstanceConfigError(ConfigError):
    """The instance's configuration is not where it should be."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"'{path}' does not exist; install the package, run from a checkout of the repository,"
            " or give the folder that holds dagster.yaml"
        )


def prepare_instance(home: Home, *, config: Path = CONFIG_FOLDER) -> Path:
    """Make the instance folder, with the current configuration; returns the folder.

    The copy of `dagster.yaml` in the folder is replaced whenever it differs.

    Raises:
        InstanceConfigError: `config` holds no `dagster.yaml`.
    """
    source = config / "dagster.yaml"
    if not source.is_file():
        raise InstanceConfigError(source)
    home.dagster.mkdir(parents=True, exist_ok=True)
    _put(home.dagster / source.name, source.read_text(encoding="utf-8"))
    return home.dagster


def instance_environ(home: Home, environ: Mapping[str, str]) -> dict[str, str]:
    """An environment in which Dagster finds the instance of a home, and the home's database."""
    names = (DATABASE_URL, f"{DATABASE_URL}_FILE")
    given = {name: environ[name] for name in names if name in environ}
    if Settings.from_environ(given).home.database != home.database:
        given = {} if home.database is None else {names[0]: home.database.get_secret_value()}
    others = {name: value for name, value in environ.items() if name not in names}
    return {**others, **given, HOME_VARIABLE: str(home.dagster)}


def write_workspace(home: Home, grpc_port: int, *, host: str = "127.0.0.1") -> Path:
    """A workspace whose code server listens on a port of a host, else of this machine."""
    path = home.dagster / "workspace.yaml"
    server = f"{{host: {host}, port: {grpc_port}, location_name: {LOCATION}}}"
    _put(path, f"load_from:\n  - grpc_server: {server}\n")
    return path


def _put(path: Path, text: str) -> None:
    """Writes a file whole or not at all: running processes read it."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).replace(path)
