"""An engine in a process of its own that takes batches, and can be made to die at a chosen step.

Run as `python -m tests.servers.engine_process HOME ROWS [STEP COUNT]`; it says `ready`, waits for a
line on its standard input, and says how many batches it won and lost.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iiot_platform.core.paths import Home
from iiot_platform.engine import hour, swap, table_store
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.errors import CommitLostError
from iiot_platform.engine.ledger import Ledger
from tests.servers.engines import LINE, PLANT

STEPS: dict[str, tuple[object, str, bool]] = {
    "before any file": (hour.HourBuilder, "extend", False),
    "a file half written": (table_store.os, "fsync", False),
    "some files written": (table_store.TableStore, "write", True),
    "all files written": (Ledger, "commit", False),
    "within the transaction": (swap, "_write_hour", True),
    "before the end of the transaction": (swap, "_count", True),
    "after the commit": (Ledger, "commit", True),
}
"""Where each step is: a function of whose n-th call the process dies at the start or the end."""


def die_at(step: str, count: int) -> None:
    """Makes this process kill itself at a step, without a word."""
    owner, name, after = STEPS[step]
    function: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def main(arguments: list[str]) -> int:
    home, rows, *at = arguments
    if at:
        die_at(at[0], int(at[1]))
    engine = Engine(Home(Path(home)), PLANT, sinks=("influxdb",))
    print("ready", flush=True)  # noqa: T201 - the parent waits for it
    sys.stdin.readline()
    won = lost = 0
    while True:
        try:
            if engine.run_batch(LINE, run_id=f"pid{os.getpid()}", row_cap=int(rows)) is None:
                break
            won += 1
        except CommitLostError:
            lost += 1
    print(won, lost, flush=True)  # noqa: T201 - read by the parent
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
