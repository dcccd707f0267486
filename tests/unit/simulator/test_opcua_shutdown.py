import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from asyncua import Server
from asyncua.server.binary_server_asyncio import BinaryServer

from simulator.opcua_shutdown import shut_down

HOST = "127.0.0.1"
HANGS_S = 60.0


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Server, int]]:
    """A server without nodes: what ends is the sockets and tasks of one."""
    server = Server()
    binary = server.bserver = BinaryServer(server.iserver, HOST, 0, server.limits)
    await binary.start()
    async with asyncio.timeout(HANGS_S):
        yield server, binary.port
    with socket.create_server((HOST, binary.port)):
        pass  # the port is free


class _ComesBack:
    """A connection whose client is back at the moment that it is closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.again: socket.socket | None = None

    def close(self) -> None:
        self.again = socket.create_connection((HOST, self._port))


def test_a_client_that_comes_back_at_once_is_thrown_out_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> bytes:
        async with listening() as (server, port):
            client = _ComesBack(port)
            server.iserver.asyncio_transports.append(client)
            await shut_down(server, patience_s=HANGS_S)
            assert client.again is not None
            with client.again:
                return client.again.recv(1)

    assert asyncio.run(scene()) == b""
    assert "cut off" not in caplog.text


def test_a_client_that_takes_nothing_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    sent = 50_000_000

    async def scene() -> int:
        async with listening() as (server, port):
            loop = asyncio.get_running_loop()
            with socket.socket() as client:
                client.setblocking(False)  # noqa: FBT003 - its only form
                await loop.sock_connect(client, (HOST, port))
                while not server.iserver.asyncio_transports:  # noqa: ASYNC110 - asyncua has no event for it
                    await asyncio.sleep(0)
                (transport,) = server.iserver.asyncio_transports
                transport.write(bytes(sent))
                await shut_down(server, patience_s=0.1)
                received = 0
                while part := await loop.sock_recv(client, 1_000_000):
                    received += len(part)
                return received

    # what the kernel had taken still comes
    assert asyncio.run(scene()) < sent
    assert "1 OPC UA clients did not take what was sent to them within 0.1 s" in caplog.text


def test_a_server_that_never_stops_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with listening() as (server, _port):
            server.iserver.time_task = asyncio.create_task(asyncio.sleep(10 * HANGS_S))
            await shut_down(server, patience_s=0.1)

    asyncio.run(scene())
    assert [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "did not stop within 0.2 s: left behind" in caplog.text


def test_what_stopping_raises_is_raised() -> None:
    class BrokenError(Exception):
        pass

    async def broken() -> None:
        raise BrokenError

    async def scene() -> None:
        async with listening() as (server, _port):
            server.iserver.time_task = asyncio.create_task(broken())
            await shut_down(server)

    with pytest.raises(BrokenError):
        asyncio.run(scene())
