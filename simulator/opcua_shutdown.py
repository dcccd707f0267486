"""The end of an OPC UA server, in bounded time whatever its clients do.

asyncua closes the connections that it has and waits until the last one is gone, but lets clients
in until that wait begins. One that is back the moment that it is thrown out stays, its session goes
on, and the server waits for ever.
"""

import asyncio
import logging
from typing import Final

from asyncua import Server

_log = logging.getLogger(__name__)

PATIENCE_S: Final = 5.0


async def shut_down(server: Server, *, patience_s: float = PATIENCE_S) -> None:
    """Stop a server; afterwards its port is free.

    Args:
        server: it may have clients.
        patience_s: so long they have to take what was sent to them; as long again asyncua has for
            what is left.
    """
    server.iserver.max_connections = 0
    stopping = asyncio.create_task(server.stop(), name="opcua-stop")
    await asyncio.wait((stopping,), timeout=patience_s)
    if not stopping.done():
        left = list(server.iserver.asyncio_transports)
        _log.warning(
            "%d OPC UA clients did not take what was sent to them within %g s: cut off",
            len(left),
            patience_s,
        )
        for transport in left:
            transport.abort()
        await asyncio.wait((stopping,), timeout=patience_s)
    if not stopping.done():
        _log.error("the OPC UA server did not stop within %g s: left behind", 2 * patience_s)
        stopping.cancel()
        await asyncio.wait((stopping,), timeout=patience_s)
        if server.bserver is not None and server.bserver._server is not None:  # noqa: SLF001 - nothing else frees the port
            server.bserver._server.close()  # noqa: SLF001 - as said
    if stopping.done() and not stopping.cancelled():
        stopping.result()
