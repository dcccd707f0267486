"""The history of a server: what a gap lacks, read by HistoryRead while live values go on."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from asyncua import Client, ua
from asyncua.client.ua_client import UaClientState
from asyncua.common.utils import ServiceError
from asyncua.ua import uaerrors

from buffer_service.sources.opcua_gaps import Gap
from buffer_service.sources.opcua_json import us_of
from buffer_service.sources.opcua_nodes import Target
from buffer_service.sources.opcua_values import ValueDecoder
from iiot_platform.config.opcua_source import OpcUaSource

logger = logging.getLogger(__name__)

_PAGE: Final = 500
_MOST_ATTEMPTS: Final = 5
_RETRY_S: Final = 5.0
_LOOK_S: Final = 0.1
_SETTLE_S: Final = 5.0
"""So long the first live values are waited for, which say where the history ends."""
_MARGIN_MS: Final = 5_000
"""Where no value says where a gap begins or ends: clocks differ, and commits take their time."""
_READ_BATCH: Final = 500
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNSUPPORTED: Final = (
    uaerrors.BadServiceUnsupported,
    uaerrors.BadHistoryOperationUnsupported,
    uaerrors.BadHistoryOperationInvalid,
    uaerrors.BadNotImplemented,
    uaerrors.BadUserAccessDenied,
)


class Taker(Protocol):
    """What the values of the history are handed to."""

    def next_gap(self) -> Gap | None:
        """The oldest gap whose history was not read yet."""

    def take_kept(self, gap: Gap, target: Target, value: Any, data: ua.DataValue) -> bool:
        """A value of the history, structures decoded; False where it was captured live."""

    def filled(self, gap: Gap, nodes: int) -> None:
        """All that the history has of a gap was taken, of `nodes` nodes that should be there."""

    async def room_for_history(self) -> None:
        """Returns once a further page may come without delaying live values."""


class HistoryReader:
    """Fills the gaps of one connection, one after the other."""

    def __init__(
        self, client: Client, settings: OpcUaSource, values: ValueDecoder, taker: Taker
    ) -> None:
        self._client = client
        self._settings = settings
        self._values = values
        self._taker = taker
        self._where = f"source '{settings.name}'"

    async def run(self, targets: Sequence[Target]) -> None:
        """Fill gaps for ever; a failure is told and does not touch the connection."""
        while True:
            gap = self._taker.next_gap()
            if gap is None or self._client.state is not UaClientState.CONNECTED:
                await asyncio.sleep(_LOOK_S)
                continue
            await self._settle(gap, len(targets))
            try:
                await self._fill(gap, targets)
            except (ua.UaError, ServiceError, OSError, ValueError) as error:
                gap.attempts += 1
                why = str(error) or type(error).__name__
                if isinstance(error, _UNSUPPORTED) or gap.attempts >= _MOST_ATTEMPTS:
                    logger.warning("%s: the gap is not filled from history: %s", self._where, why)
                    self._taker.filled(gap, len(targets))
                else:
                    logger.warning("%s: history can not be read yet: %s", self._where, why)
                    await asyncio.sleep(_RETRY_S)

    async def _settle(self, gap: Gap, nodes: int) -> None:
        until = time.monotonic() + _SETTLE_S
        while len(gap.after) < nodes and time.monotonic() < until:  # noqa: ASYNC110 - values tell it
            await asyncio.sleep(_LOOK_S)

    async def _fill(self, gap: Gap, targets: Sequence[Target]) -> None:
        readable = await self._readable(targets)
        if not readable:
            logger.info("%s: none of the nodes has a history to fill a gap from", self._where)
        left = self._settings.history_limit - sum(gap.counts.values())
        for target in readable:
            if target.topic in gap.done:
                continue
            try:
                left -= await self._fill_node(gap, target, left)
            except _UNSUPPORTED as error:
                logger.warning("%s: %s: %s", self._where, target.topic, type(error).__name__)
                continue
            if left <= 0:
                logger.error(
                    "%s: the gap holds more than history_limit (%d) values; the rest is left out",
                    self._where,
                    self._settings.history_limit,
                )
                break
            gap.done.add(target.topic)
        self._taker.filled(gap, len(targets))

    async def _readable(self, targets: Sequence[Target]) -> list[Target]:
        """Those whose history we may read."""
        found = []
        for at in range(0, len(targets), _READ_BATCH):
            batch = targets[at : at + _READ_BATCH]
            levels = await self._client.uaclient.read_attributes(
                [target.node for target in batch], ua.AttributeIds.UserAccessLevel
            )
            for target, level in zip(batch, levels, strict=True):
                bits = level.Value.Value if level.Value is not None else 0
                if isinstance(bits, int) and bits & 1 << ua.AccessLevel.HistoryRead:
                    found.append(target)
        return found

    async def _fill_node(self, gap: Gap, target: Target, most: int) -> int:
        """Take what the history of a node has of a gap; returns how many values that were."""
        before, after = gap.before.get(target.topic), gap.after.get(target.topic)
        begin_us = before.source_us if before is not None else None
        end_us = after.source_us if after is not None else None
        if begin_us is not None and begin_us == end_us:
            return 0  # the node still shows what was captured last
        if begin_us is None:
            begin_us = 1_000 * (gap.history_ms - _MARGIN_MS)
        if end_us is None or end_us < begin_us:
            end_us = 1_000 * (gap.end_ms + _MARGIN_MS)
        count = 0
        pages = self._pages(target.node, begin_us, end_us)
        async with contextlib.aclosing(pages):
            async for page in pages:
                for data in page:
                    held = data.Value.Value if data.Value is not None else None
                    value = await self._values.decode(held)
                    count += self._taker.take_kept(gap, target, value, data)
                if count >= most:
                    break
                await self._taker.room_for_history()
        return count

    async def _pages(
        self, node: ua.NodeId, begin_us: int, end_us: int
    ) -> AsyncGenerator[list[ua.DataValue]]:
        """The raw values of [begin, end], oldest first, in answers of a bounded size."""
        details = ua.ReadRawModifiedDetails()
        details.IsReadModified = False
        details.NumValuesPerNode = ua.UInt32(_PAGE)
        details.ReturnBounds = False
        details.EndTime = _moment(end_us)
        wanted = ua.HistoryReadValueId(NodeId=node)
        wanted.IndexRange = ""
        try:
            while True:
                details.StartTime = _moment(begin_us)
                result = await self._ask(details, wanted)
                result.StatusCode.check()
                data = result.HistoryData
                page = list(data.DataValues or ()) if isinstance(data, ua.HistoryData) else []
                wanted.ContinuationPoint = result.ContinuationPoint or None
                yield page
                if wanted.ContinuationPoint is None:
                    last_us = us_of(page[-1].SourceTimestamp) if page else None
                    if len(page) < _PAGE or last_us is None or last_us <= begin_us:
                        return
                    begin_us = last_us  # a server that cuts its answer short and says nothing
        finally:
            if wanted.ContinuationPoint is not None:
                with contextlib.suppress(ua.UaError, ServiceError, OSError):
                    await self._ask(details, wanted, release=True)

    async def _ask(
        self,
        details: ua.ReadRawModifiedDetails,
        wanted: ua.HistoryReadValueId,
        *,
        release: bool = False,
    ) -> ua.HistoryReadResult:
        parameters = ua.HistoryReadParameters()
        parameters.HistoryReadDetails = details
        parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        parameters.ReleaseContinuationPoints = release
        parameters.NodesToRead = [wanted]
        results = await self._client.uaclient.history_read(parameters)
        return results[0]


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
