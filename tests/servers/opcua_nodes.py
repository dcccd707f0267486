"""The nodes that every OPC UA server has by the standard: loaded with this module, once.

A process that is forked from one that has it gets them for nothing.
"""

from typing import Final

from asyncua.server.address_space import AddressSpace, NodeManagementService
from asyncua.server.internal_server import InternalServer
from asyncua.server.standard_address_space.standard_address_space import fill_address_space

_SPACE: Final = AddressSpace()
fill_address_space(NodeManagementService(_SPACE))  # type: ignore[no-untyped-call]  # asyncua's


async def _load(server: InternalServer, _shelf: object = None) -> None:
    server.aspace._nodes = _SPACE._nodes


def use_what_is_loaded() -> None:
    """Gives the nodes to the one server of this process, which may change them."""
    InternalServer.load_standard_address_space = _load  # type: ignore[method-assign,assignment]  # a stand-in
