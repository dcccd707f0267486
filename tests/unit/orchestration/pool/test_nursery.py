"""When the nursery may fork."""

import threading

import pytest

from iiot_platform.orchestration.pool import parenthood, wire
from iiot_platform.orchestration.pool.lineup import Limits
from iiot_platform.orchestration.pool.nursery import Nursery


def test_it_does_not_fork_beside_a_second_thread() -> None:
    ours, theirs = wire.pair()
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        with ours, theirs, pytest.raises(RuntimeError, match="threads and can not fork"):
            Nursery(ours, Limits())._fork(1, theirs, ())
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("status", "told"),
    [(9, "killed by signal 9 (SIGKILL)"), (0, "ended with code 0"), (256, "ended with code 1")],
)
def test_how_a_process_ended(status: int, told: str) -> None:
    assert parenthood.ending(status) == told
