"""The runs that the pool has taken on, on disk: what a service that was killed leaves undone."""

from pathlib import Path
from typing import Final

FOLDER: Final = "pool"


class Journal:
    """One empty file per run below the instance folder.

    Args:
        instance: the instance folder.
    """

    def __init__(self, instance: Path) -> None:
        self._folder = instance / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)

    def add(self, run_id: str) -> None:
        """Notes a run."""
        (self._folder / run_id).touch()

    def remove(self, run_id: str) -> None:
        """The run is over."""
        (self._folder / run_id).unlink(missing_ok=True)

    def runs(self) -> list[str]:
        """Those that are noted."""
        return sorted(path.name for path in self._folder.iterdir())
