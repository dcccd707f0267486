"""An OPC UA server whose nodes are a scenario's devices: scalars, else structs.

Objects/Plant/<line>/<machine>/<device>, in a namespace of its own. Objects/Simulator has the
methods that make trouble: Restart(seconds), Extend(seconds) (a restart after which every
structure has one more field), Fault(device, status code, seconds).
"""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec
from asyncua import Node, Server, ua, uamethod

from simulator.opcua_history import PlantHistory, Said
from simulator.opcua_types import StructType, TypeLibrary, shape_of

NAMESPACE: Final = "urn:iiot-platform:simulator:plant"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SCALARS: Final = {
    "SensorValue": ua.VariantType.Double,
    "StateValue": ua.VariantType.Int32,
}
_HEAD: Final = frozenset({"LineName", "MachineName", "TimeStamp", "SensorName", "StateName"})
RESERVE: Final = "Reserve"


class _Device(NamedTuple):
    node: Node
    struct: StructType | None
    scalar: str


class Trouble:
    """What the methods ask for."""

    def __init__(self) -> None:
        self.restart_s: float | None = None
        self.extend = False
        self.bad: dict[str, tuple[int, float]] = {}
        """Topic to status code and the moment (monotonic) until which it holds."""


class PlantServer:
    """Fills a server with a plant and writes what its devices say.

    Args:
        server: not yet started.
        trouble: what the methods ask for.
        generation: how often the structures were extended.
        history: of the nodes; None: they have none.
    """

    def __init__(
        self,
        server: Server,
        trouble: Trouble,
        *,
        generation: int,
        history: PlantHistory | None = None,
    ) -> None:
        self._server = server
        self._trouble = trouble
        self._generation = generation
        self._history = history
        if history is not None:
            history.encode = self._value
            server.iserver.history_manager.set_storage(history)
        self._devices: dict[str, _Device] = {}
        self._types = TypeLibrary(server, 0)
        self._last: dict[str, tuple[Any, int]] = {}

    async def fill(
        self,
        samples: Mapping[str, dict[str, Any]],
        shown: Mapping[str, bytes] | None = None,
    ) -> None:
        """Make the nodes.

        Args:
            samples: topic to any payload of the device, which shows its fields.
            shown: topic to what the node shows from the start; others wait for their first value.
        """
        server = self._server
        index = await server.register_namespace(NAMESPACE)
        library = self._types = TypeLibrary(server, index)
        root = await server.nodes.objects.add_folder(index, "Plant")
        folders: dict[str, Node] = {}
        for topic, sample in samples.items():
            line, machine, device = topic.split("/")
            parent = root
            for path, name in ((line, line), (f"{line}/{machine}", machine)):
                if path not in folders:
                    folders[path] = await parent.add_folder(
                        ua.NodeId(ua.String(path), ua.Int16(index)), ua.QualifiedName(name, index)
                    )
                parent = folders[path]
            self._devices[topic] = await self._device(library, parent, index, device, topic, sample)
        for topic, payload in (shown or {}).items():
            await self.write(topic, payload)
        await self._methods(index)

    @property
    def topics(self) -> int:
        """How many devices there are."""
        return len(self._devices)

    async def _device(
        self,
        library: TypeLibrary,
        parent: Node,
        index: int,
        name: str,
        topic: str,
        sample: dict[str, Any],
    ) -> _Device:
        node_id = ua.NodeId(ua.String(topic), ua.Int16(index))
        browse_name = ua.QualifiedName(name, index)
        scalar = _scalar(sample)
        if scalar:
            kind = _SCALARS[scalar]
            node, struct = await parent.add_variable(node_id, browse_name, 0, kind), None
        else:
            shape = shape_of(f"ST_{_kind(sample)}", self._extended(sample))
            struct = await library.make(shape)
            first = struct.value(self._extended(sample))
            node = await parent.add_variable(node_id, browse_name, first, datatype=struct.data_type)
        if self._history is not None:
            for level in (ua.AttributeIds.AccessLevel, ua.AttributeIds.UserAccessLevel):
                await node.set_attr_bit(level, ua.AccessLevel.HistoryRead)
        waiting = ua.StatusCode(ua.UInt32(ua.StatusCodes.BadWaitingForInitialData))
        await self._server.write_attribute_value(
            node_id, ua.DataValue(ua.Variant(None), waiting, SourceTimestamp=ua.DateTime.now(UTC))
        )
        return _Device(node, struct, scalar)

    def _extended(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {**payload, RESERVE: float(self._generation)} if self._generation else payload

    async def extend(self, samples: Mapping[str, dict[str, Any]]) -> None:
        """Give every structure one more field under its old ids, as an online change does."""
        self._generation += 1
        for topic, device in list(self._devices.items()):
            if device.struct is not None:
                struct = await self._types.extend(device.struct, self._extended(samples[topic]))
                self._devices[topic] = device._replace(struct=struct)

    async def write(self, topic: str, payload: bytes) -> bool:
        """A device says something; False where the value is the one that the node has."""
        device = self._devices[topic]
        fields = msgspec.json.decode(payload)
        said = Said(fields["TimeStamp"], payload, self._status(topic))
        if self._history is not None:
            self._history.add(topic, said)
        value = self._value(topic, said)
        await self._server.write_attribute_value(device.node.nodeid, value)
        # a structure carries its time
        now = (fields[device.scalar] if device.scalar else payload, said.status)
        changed = self._last.get(topic) != now
        self._last[topic] = now
        return changed

    def _value(self, topic: str, said: Said) -> ua.DataValue:
        device = self._devices[topic]
        fields = msgspec.json.decode(said.payload)
        stamp: Any = _EPOCH + timedelta(milliseconds=said.ts_ms)
        if device.struct is None:
            value = ua.Variant(fields[device.scalar], _SCALARS[device.scalar])
        else:
            extended = self._extended(fields)
            value = ua.Variant(device.struct.value(extended), ua.VariantType.ExtensionObject)
        status = ua.StatusCode(ua.UInt32(said.status))
        return ua.DataValue(
            value, status, SourceTimestamp=stamp, ServerTimestamp=ua.DateTime.now(UTC)
        )

    def _status(self, topic: str) -> int:
        code, until = self._trouble.bad.get(topic, (0, 0.0))
        return code if time.monotonic() < until else 0

    async def _methods(self, index: int) -> None:
        trouble = self._trouble
        folder = await self._server.nodes.objects.add_object(index, "Simulator")

        # Coroutines, since others run in a thread, beside the loop that looks for what they ask:
        # it could end the server before the caller has an answer.
        @uamethod
        async def restart(_parent: Any, seconds: float) -> None:
            trouble.restart_s = seconds

        @uamethod
        async def extend(_parent: Any, seconds: float) -> None:
            trouble.extend, trouble.restart_s = True, seconds

        @uamethod
        async def fault(_parent: Any, device: str, code: int, seconds: float) -> None:
            trouble.bad[device] = (code, time.monotonic() + seconds)

        double, text, number = ua.VariantType.Double, ua.VariantType.String, ua.VariantType.UInt32
        await folder.add_method(index, "Restart", restart, [double], [])
        await folder.add_method(index, "Extend", extend, [double], [])
        await folder.add_method(index, "Fault", fault, [text, number, double], [])


async def samples_of(payloads: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Decoded payloads, off the event loop's time."""
    return await asyncio.to_thread(
        lambda: {topic: msgspec.json.decode(payload) for topic, payload in payloads.items()}
    )


def _scalar(payload: dict[str, Any]) -> str:
    """The only field beside the header, where it is one of a signal or a state."""
    rest = set(payload) - _HEAD
    name = next(iter(rest)) if len(rest) == 1 else ""
    return name if name in _SCALARS else ""


def _kind(payload: dict[str, Any]) -> str:
    if "ElectricalData" in payload:
        return "Electrical"
    if "TimeType" in payload:
        return "Valve"
    return "Vibration" if any(name.startswith("Vib") for name in payload) else "Climate"
