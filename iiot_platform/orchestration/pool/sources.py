"""What a run would be computed with if it began now: the code and the configuration on disk."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parents[2]


@dataclass
class Sources:
    """Some files and folders of Python code, known by their content.

    Attributes:
        paths: files, or folders whose modules count.
    """

    paths: tuple[Path, ...]
    _signature: object = field(default=None, init=False)
    _build: str = field(default="", init=False)

    def build(self) -> str:
        """The hash of all content; read again only where a file's time or size has changed."""
        files = sorted(found for path in self.paths for found in _files(path))
        signature = [(str(file), *_stat(file)) for file in files]
        if signature != self._signature:
            digest = hashlib.blake2b(digest_size=8)
            for file in files:
                digest.update(str(file).encode())
                digest.update(file.read_bytes() if file.is_file() else b"")
            self._build, self._signature = digest.hexdigest(), signature
        return self._build


def code() -> Sources:
    """The platform's own code."""
    return Sources((PACKAGE,))


def everything(plant: Path, instance: Path) -> Sources:
    """Code, plant file and the instance's configuration."""
    return Sources((PACKAGE, plant, instance / "dagster.yaml"))


def _files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return (path,)
    return (
        Path(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if name.endswith(".py")
    )


def _stat(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except FileNotFoundError:
        return (0, -1)
    return (status.st_mtime_ns, status.st_size)
