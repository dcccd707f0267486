"""Follows the plant file: a line is added by an edit alone, without a restart."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.core.errors import ConfigError

logger = logging.getLogger(__name__)

REST_LOOKS: Final = 2
"""Looks at an unchanged file before it is read: half of a file may be a valid one, with fewer
lines."""

_Signature = tuple[int, int, int] | None


class PlantWatch:
    """The plant that a file describes, read anew when the file has changed.

    Args:
        path: the plant file.
        environ: where `${NAME}` is taken from.
    """

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ
        self._read: _Signature = None
        self._seen: _Signature = None
        self._looks = 0
        self.problem = ""
        """Why the file as it stands is not in force; empty: it is."""

    def load(self) -> Plant:
        """The plant that the file describes now.

        Raises:
            PlantFileError: the file can not be read, or something in it is wrong.
        """
        self._read = self._seen = self._signature()
        plant = load_plant(self._path, self._environ)
        self.problem = ""
        return plant

    def look(self, *, at_once: bool = False) -> Plant | None:
        """The plant where the file has changed and is at rest; else None.

        A broken file changes nothing: it is told once, and in `problem`.

        Args:
            at_once: read it whatever it looks like: a secret beside it may have changed.
        """
        signature = self._signature()
        if signature != self._seen:
            self._seen, self._looks = signature, 0
        self._looks += 1
        if not at_once and (signature == self._read or self._looks <= REST_LOOKS):
            return None
        try:
            return self.load()
        except ConfigError as error:
            self.problem = str(error)
            logger.error("%s\nthe plant stays as it was", error)  # noqa: TRY400 - the message says it all
            return None

    def _signature(self) -> _Signature:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
