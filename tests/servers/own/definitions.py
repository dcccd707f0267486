"""Jobs of a plant's own beside the platform's, as `IIOT_DEFINITIONS` lets Dagster load them."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import Definitions, OpExecutionContext, RetryPolicy, job, op

from iiot_platform import definitions as platform

ALONE_S = 0.5


@op(retry_policy=RetryPolicy(max_retries=2, delay=0.1), out={})
def flaky_op(context: OpExecutionContext) -> Iterator[Any]:
    """Fails twice."""
    sys.stdout.write(f"said to stdout, attempt {context.retry_number}\n")
    sys.stderr.write(f"said to stderr, attempt {context.retry_number}\n")
    if context.retry_number < 2:
        raise ConnectionError("not yet")
    yield from ()


@op(out={})
def dying_op(context: OpExecutionContext) -> Iterator[Any]:
    """Is killed, unless its run is a retry of another."""
    if context.run.parent_run_id is None:
        os.kill(os.getpid(), signal.SIGKILL)
    yield from ()


@op(out={})
def limited_op() -> Iterator[Any]:
    """Fails where another run is at it: the run queue lets in one at a time."""
    with _alone("limited"):
        time.sleep(ALONE_S)
    yield from ()


@op(out={}, pool="press")
def pooled_op() -> Iterator[Any]:
    """Likewise, but the limit is that of an op's pool."""
    with _alone("pooled"):
        time.sleep(ALONE_S)
    yield from ()


@op(out={})
def endless_op() -> Iterator[Any]:
    """Does not end by itself."""
    time.sleep(600)
    yield from ()


@job(tags={"owner": "plant"})
def flaky() -> None:
    flaky_op()


@job
def dying() -> None:
    dying_op()


@job
def limited() -> None:
    limited_op()


@job
def pooled() -> None:
    pooled_op()


@job
def endless() -> None:
    endless_op()


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Raises where another process is inside."""
    mark = Path(os.environ["IIOT_HOME"]) / f"{name}.alone"
    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    yield
    mark.unlink()


defs = Definitions.merge(platform.defs, Definitions(jobs=[flaky, dying, limited, pooled, endless]))
