"""What a run would be computed with if it began now: the code and the configuration on disk."""

import hashlib
import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iiot_platform.config.active_plant import active_path
from iiot_platform.config.settings import DEFINITIONS, Settings

PACKAGE: Final = Path(__file__).resolve().parents[2]


@dataclass
class Sources:
    """Some files and folders of Python code, known by their content.

    Attributes:
        paths: files, or folders whose modules count.
        first_of: files of which only the first that is there counts.
    """

    paths: tuple[Path, ...]
    first_of: tuple[Path, ...] = ()
    _signature: object = field(default=None, init=False)
    _build: str = field(default="", init=False)

    def build(self) -> str:
        """The hash of all content; read again only where a file's time or size has changed."""
        chosen = next((path for path in self.first_of if path.exists()), None)
        paths = self.paths if chosen is None else (*self.paths, chosen)
        found = sorted(found for path in paths for found in _files(str(path)))
        signature = [(file, *_stat(file)) for file in found]
        if signature != self._signature:
            digest = hashlib.blake2b(digest_size=8)
            for file in found:
                digest.update(file.encode())
                digest.update(Path(file).read_bytes() if Path(file).is_file() else b"")
            self._build, self._signature = digest.hexdigest(), signature
        return self._build


def code() -> Sources:
    """The platform's own code."""
    return Sources((PACKAGE,))


def everything(settings: Settings) -> Sources:
    """Code, the plant in force (the plant file where none is yet) and Dagster's configuration."""
    return Sources(
        (PACKAGE, *_definitions(settings.definitions), settings.home.dagster / "dagster.yaml"),
        first_of=(active_path(settings.home), settings.plant_path),
    )


def _definitions(module: str) -> tuple[Path, ...]:
    """The module that is loaded, with its package, where it is not the platform's own."""
    if module == DEFINITIONS:
        return ()
    try:
        found = importlib.util.find_spec(module)
    except ImportError:
        found = None
    if found is None or found.origin is None:
        return ()  # loading it says what is wrong
    path = Path(found.origin)
    return (path.parent,) if "." in module else (path,)


def _files(path: str) -> Iterable[str]:
    if not os.path.isdir(path):  # noqa: PTH112 - every launch waits for this
        yield path
        return
    folders = [path]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    yield entry.path
                elif entry.is_dir() and entry.name != "__pycache__":
                    folders.append(entry.path)


def _stat(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)  # noqa: PTH116 - likewise
    except FileNotFoundError:
        return (0, -1)
    return (status.st_mtime_ns, status.st_size)
