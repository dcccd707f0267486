"""How the pool's processes talk: one JSON object a packet, over Unix sockets."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from iiot_platform.core.errors import PlatformError

SOCKET: Final = "pool.sock"
MAX_PACKET: Final = 64 * 1024
_BACKLOG: Final = 128
_ADDRESS_BYTES: Final = 100
_OWNER_ONLY: Final = 0o177

Message = dict[str, Any]


class PoolAwayError(PlatformError):
    """Nothing listens; what the pool had, it has no more."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"no pool listens at '{path}' ({error.strerror or error})")


class PoolSilentError(PlatformError):
    """The pool is there and does not answer; what it did with the question is not known."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__(f"the pool at '{path}' does not answer within {timeout_s:g} s")


def listen(folder: Path) -> socket.socket:
    """The socket of the service, for its owner alone."""
    path = folder / SOCKET
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(_OWNER_ONLY)
    try:
        with _short(path) as name:
            server.bind(name)
    finally:
        os.umask(before)
    server.listen(_BACKLOG)
    return server


def ask(folder: Path, message: Mapping[str, Any], *, timeout_s: float) -> Message:
    """The answer of the service to one question.

    Raises:
        PoolAwayError: nothing listens.
        PoolSilentError: no answer in time, or the service ended before it answered.
    """
    path = folder / SOCKET
    try:
        client = _connected(path, timeout_s)
    except TimeoutError as error:
        raise PoolSilentError(path, timeout_s) from error
    except OSError as error:
        raise PoolAwayError(path, error) from error
    with client:
        try:
            client.send(pack(message))
            answer = receive(client)
        except OSError as error:
            raise PoolSilentError(path, timeout_s) from error
    if answer is None:
        raise PoolSilentError(path, timeout_s)
    return answer


def _connected(path: Path, timeout_s: float) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        client.settimeout(timeout_s)
        with _short(path) as name:
            client.connect(name)
    except OSError:
        client.close()
        raise
    return client


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a line between processes of the pool."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def pack(message: Mapping[str, Any]) -> bytes:
    """A message as a packet."""
    return json.dumps(message).encode()


def receive(line: socket.socket) -> Message | None:
    """The next message; None where the other end has gone."""
    try:
        packet = line.recv(MAX_PACKET)
    except ConnectionResetError:  # gone without reading what it was told
        return None
    return json.loads(packet) if packet else None


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the path that fits into a socket's address, which holds about 100 bytes."""
    if len(os.fsencode(path)) < _ADDRESS_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
