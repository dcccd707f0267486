"""A network that can be cut: what was under way is gone, and nobody is told."""

import contextlib
import select
import socket
import threading
from typing import Self


class TcpProxy:
    """Forwards connections to a port of this machine, until it is cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._is_cut = self._is_silent = False
        self._orphans: list[socket.socket] = []
        self._is_losing = self._stopping = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stopping = True
        self._thread.join()

    def cut(self, *, silently: bool = False) -> None:
        """Cut it; silently, connections stay open and nothing comes through them."""
        self._is_silent = silently
        self._is_cut = True

    def lose_servers(self) -> None:
        """Half open: the servers' ends close, the clients' stay and hear nothing; new ones work."""
        self._is_losing = True

    def mend(self) -> None:
        self._is_cut = False

    def _run(self) -> None:
        while not self._stopping:
            if self._is_losing:
                self._lose()
            watched = [] if self._is_cut else [self._listener, *self._pairs]
            if self._is_cut and not self._is_silent:
                self._drop()
            readable, _, _ = select.select(watched, [], [], 0.02)
            for ready in readable:
                if ready is self._listener:
                    self._accept()
                elif ready in self._pairs:
                    self._forward(ready)
        self._drop()
        self._listener.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        self._pairs[client], self._pairs[server] = server, client

    def _forward(self, ready: socket.socket) -> None:
        other = self._pairs[ready]
        data = b""
        with contextlib.suppress(OSError):
            data = ready.recv(65_536)
            other.sendall(data)
        if not data:
            for end in (ready, other):
                self._pairs.pop(end, None)
                end.close()

    def _lose(self) -> None:
        for end in self._pairs:
            if end.getsockname()[1] == self.port:
                self._orphans.append(end)
            else:
                end.close()
        self._pairs.clear()
        self._is_losing = False

    def _drop(self) -> None:
        for end in (*self._pairs, *self._orphans):
            end.close()
        self._pairs.clear()
        self._orphans.clear()
