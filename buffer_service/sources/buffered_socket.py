"""A socket that shares one system call among some hundred packets, each way."""

import contextlib
import socket
import ssl
from typing import Final

_READ_BYTES: Final = 65_536
_CLOSE_TIMEOUT_S: Final = 1.0


class BufferedSocket:
    """Non-blocking; what `send` takes goes out with the next `flush`."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self._ahead = b""
        self._at = 0
        self._unsent = bytearray()

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes, from what was read ahead where there is some.

        Raises:
            BlockingIOError: nothing has come.
            ssl.SSLError: likewise over TLS, or the connection is broken.
        """
        at = self._at
        if at == len(self._ahead):
            ahead = self._inner.recv(max(size, _READ_BYTES))
            if len(ahead) <= size:
                return ahead
            self._ahead, self._at, at = ahead, 0, 0
        data = self._ahead[at : at + size]
        self._at = at + len(data)
        return data

    @property
    def readable(self) -> bool:
        """True where `recv` has bytes that no select shows."""
        if self._at < len(self._ahead):
            return True
        return isinstance(self._inner, ssl.SSLSocket) and self._inner.pending() > 0

    def send(self, data: bytes) -> int:
        """Take everything; `flush` sends it."""
        self._unsent += data
        return len(data)

    def flush(self) -> bool:
        """Send what was taken; False where some is left because the peer does not read.

        Raises:
            OSError: the connection is broken.
        """
        while self._unsent:
            try:
                sent = self._inner.send(self._unsent)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            del self._unsent[:sent]
        return True

    def fileno(self) -> int:
        """The kernel's number, for select."""
        return self._inner.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the socket's own signature
        """As a socket's."""
        self._inner.setblocking(flag)

    def close(self) -> None:
        """Send what is left, within a second, and close."""
        with contextlib.suppress(OSError):
            self._inner.settimeout(_CLOSE_TIMEOUT_S)
            if self._unsent:
                self._inner.sendall(self._unsent)
        self._inner.close()
