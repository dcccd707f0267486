"""Dagster's instance for a process that is none of Dagster's."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dagster import DagsterInstance

from iiot_platform.core.paths import Home
from iiot_platform.orchestration.instance import instance_environ


@contextmanager
def opened(home: Home) -> Iterator[DagsterInstance]:
    """The instance of a home; its configuration asks the environment where its storage is."""
    before = dict(os.environ)
    _set(instance_environ(home, before))
    try:
        with DagsterInstance.from_config(str(home.dagster)) as instance:
            yield instance
    finally:
        _set(before)


def _set(environ: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environ.keys():
        del os.environ[name]
    os.environ.update(environ)
