"""Dagster's instance for a process that is none of Dagster's."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dagster import DagsterInstance

from iiot_platform.core.paths import Home

_HOME: Final = "DAGSTER_HOME"


@contextmanager
def opened(home: Home) -> Iterator[DagsterInstance]:
    """The instance of a home; its configuration asks the environment for its own folder."""
    before = os.environ.get(_HOME)
    os.environ[_HOME] = str(home.dagster)
    try:
        with DagsterInstance.from_config(str(home.dagster)) as instance:
            yield instance
    finally:
        if before is None:
            del os.environ[_HOME]
        else:
            os.environ[_HOME] = before
