"""What the devices of an OPC UA server have said before: read by HistoryRead, page by page."""

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from asyncua import ua
from asyncua.server.history import HistoryStorageInterface

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_PAGE: Final = 1_000


class Said(NamedTuple):
    """What a device said: when (Unix ms), the payload, and how good the value was."""

    ts_ms: int
    payload: bytes
    status: int = 0


Encode = Callable[[str, Said], ua.DataValue]


class PlantHistory(HistoryStorageInterface):
    """Keeps what was said for some time; survives the restarts of its server.

    Args:
        keep_s: for how long.
        page: values in one answer at most; further ones by its continuation point.
    """

    def __init__(self, keep_s: float, page: int = _PAGE) -> None:
        super().__init__(page)
        self._keep_ms = round(1_000 * keep_s)
        self._said: dict[str, deque[Said]] = {}
        self.encode: Encode | None = None
        """Makes a value of what was said; of the server that runs now."""

    def add(self, topic: str, said: Said) -> None:
        """A device has said something."""
        kept = self._said.setdefault(topic, deque())
        kept.append(said)
        while said.ts_ms - kept[0].ts_ms > self._keep_ms:
            kept.popleft()

    async def init(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    async def read_node_history(
        self, node_id: ua.NodeId, start: datetime | None, end: datetime | None, nb_values: int
    ) -> tuple[list[ua.DataValue], datetime | None]:
        """Values from `start` to `end`, both inclusive, and the time of the first one left out."""
        topic = str(node_id.Identifier)
        limit = min(nb_values or self.max_history_data_response_size, _PAGE)
        limit = min(limit, self.max_history_data_response_size)
        first_ms, last_ms = _ms(start), _ms(end)
        found = sorted(
            said for said in self._said.get(topic, ()) if first_ms <= said.ts_ms <= last_ms
        )
        page, rest = found[:limit], found[limit:]
        # whoever goes on from a time must not meet half of it
        while rest and len(page) > 1 and page[-1].ts_ms == rest[0].ts_ms:
            rest.insert(0, page.pop())
        encode = self.encode
        values = [] if encode is None else [encode(topic, said) for said in page]
        return values, _EPOCH + rest[0].ts_ms * _MILLISECOND if rest else None

    async def new_historized_node(
        self, node_id: ua.NodeId, period: timedelta | None, count: int = 0
    ) -> None:
        """Whoever writes a node adds to its history: there is no subscription for it."""

    async def save_node_value(self, node_id: ua.NodeId, datavalue: ua.DataValue) -> None:
        """As `new_historized_node`."""

    async def new_historized_event(
        self, source_id: ua.NodeId, evtypes: list[Any], period: timedelta | None, count: int = 0
    ) -> None:
        """There are no events."""

    async def save_event(self, event: Any) -> None:
        """There are no events."""

    async def read_event_history(
        self,
        source_id: ua.NodeId,  # noqa: ARG002 - asyncua's signature
        start: datetime | None,  # noqa: ARG002
        end: datetime | None,  # noqa: ARG002
        nb_values: int,  # noqa: ARG002
        evfilter: ua.EventFilter,  # noqa: ARG002
    ) -> tuple[list[Any], datetime | None]:
        """There are no events."""
        return [], None


def _ms(moment: datetime | None) -> int:
    if moment is None:
        return 0
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // _MILLISECOND
