"""The socket between launcher and pool."""

import contextlib
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iiot_platform.orchestration.pool import wire


@contextlib.contextmanager
def service(folder: Path, answer: dict[str, Any] | None) -> Iterator[None]:
    """Answers one question; None: hangs up instead."""
    server = wire.listen(folder)

    def serve() -> None:
        client, _ = server.accept()
        with client:
            asked = wire.receive(client)
            if answer is not None:
                client.send(wire.pack({**answer, "asked": asked}))

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    thread.join()
    server.close()


@pytest.fixture(params=["short", "deep/" + "x" * 150])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A path may be longer than a socket's address can be."""
    found = tmp_path / str(request.param)
    found.mkdir(parents=True)
    return found


def test_a_question_is_answered(folder: Path) -> None:
    with service(folder, {"refused": None}):
        answer = wire.ask(folder, {"ask": "launch"}, timeout_s=60)
    assert answer == {"refused": None, "asked": {"ask": "launch"}}


def test_the_socket_is_its_owners_alone(tmp_path: Path) -> None:
    wire.listen(tmp_path).close()
    assert stat.S_IMODE((tmp_path / wire.SOCKET).stat().st_mode) == 0o600


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(wire.PoolAwayError, match="no pool listens"):
        wire.ask(tmp_path, {"ask": "launch"}, timeout_s=60)
    wire.listen(tmp_path).close()  # a service that was killed leaves its socket behind
    with pytest.raises(wire.PoolAwayError, match="no pool listens"):
        wire.ask(tmp_path, {"ask": "launch"}, timeout_s=60)


def test_a_service_that_does_not_answer_is_not_away(tmp_path: Path) -> None:
    with service(tmp_path, None), pytest.raises(wire.PoolSilentError, match="does not answer"):
        wire.ask(tmp_path, {"ask": "launch"}, timeout_s=60)
    server = wire.listen(tmp_path)
    with pytest.raises(wire.PoolSilentError, match="does not answer"):
        wire.ask(tmp_path, {"ask": "launch"}, timeout_s=0.05)
    server.close()
