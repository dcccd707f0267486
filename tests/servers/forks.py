"""Processes that are forked from one of their own, which has loaded what takes long.

A test process has one such server at most, and what it loads is settled by who needs it first:
so it is the same for all.
"""

import multiprocessing
from multiprocessing.context import ForkServerContext
from typing import Final

_LOADED: Final = ["tests.servers.opcua_nodes", "dagster"]


def forks() -> ForkServerContext:
    """Where such processes come from; their environment is that of the first test that had one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED)
    return context
