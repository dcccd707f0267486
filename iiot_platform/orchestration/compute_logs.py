"""Output of runs, kept for the UI by redirection in process.

Dagster's own local manager mirrors output too, with four helper processes for every step.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from dagster import StringSource
from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import (
    IO_TYPE_EXTENSION,
    LocalComputeLogManager,
)
from dagster._serdes import ConfigurableClassData

FOLDER = "compute_logs"


class RedirectingComputeLogs(LocalComputeLogManager):
    """Keeps standard output and error of a step in files below the instance folder."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """`home`: the instance folder."""
        return {"home": StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, str]
    ) -> Self:
        """The manager that `dagster.yaml` asks for."""
        return cls(base_dir=str(Path(config_value["home"]) / FOLDER), inst_data=inst_data)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        """Redirects output to the step's files while the block runs."""
        paths = {io: self._path(log_key, IO_TYPE_EXTENSION[io]) for io in ComputeIOType}
        try:
            with (
                redirect_to_file(sys.stdout, str(paths[ComputeIOType.STDOUT])),
                redirect_to_file(sys.stderr, str(paths[ComputeIOType.STDERR])),
            ):
                yield CapturedLogContext(log_key)
        finally:
            # tells the UI that no more will come
            self._path(log_key, "complete").touch()

    def _path(self, log_key: Sequence[str], extension: str) -> Path:
        path = Path(self.get_captured_local_path(log_key, extension))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
