"""Reading again and again instead of subscribing, for servers whose subscriptions fail."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Protocol

from asyncua import Client, ua

from buffer_service.sources.opcua_nodes import Target
from iiot_platform.config.opcua_source import OpcUaSource

_READ_BATCH: Final = 500


class Take(Protocol):
    """Takes what has changed: places among the targets with their values."""

    async def __call__(self, changed: Sequence[tuple[int, ua.DataValue]], *, last: bool) -> None:
        """One part of a round, the last one marked."""


async def poll(
    client: Client, settings: OpcUaSource, targets: Sequence[Target], take: Take
) -> None:
    """Read all nodes every sampling interval and hand over what has changed, for ever.

    Raises:
        ua.UaError: the server refuses.
        OSError: the connection is lost.
    """
    interval_s = settings.sampling_interval_ms / 1_000
    before: list[ua.DataValue | None] = [None] * len(targets)
    time_too = settings.report == "sample"
    due = time.monotonic()
    while True:
        due = max(due + interval_s, time.monotonic() - interval_s)
        for at in range(0, len(targets), _READ_BATCH):
            batch = targets[at : at + _READ_BATCH]
            values = await client.uaclient.read_attributes(
                [target.node for target in batch], ua.AttributeIds.Value
            )
            changed = []
            for place, value in enumerate(values, at):
                known, before[place] = before[place], value
                if known is None or _differs(known, value, time_too=time_too):
                    changed.append((place, value))
            await take(changed, last=at + _READ_BATCH >= len(targets))
        await asyncio.sleep(due - time.monotonic())


def _differs(before: ua.DataValue, now: ua.DataValue, *, time_too: bool) -> bool:
    return (
        before.StatusCode != now.StatusCode
        or before.Value != now.Value
        or (time_too and before.SourceTimestamp != now.SourceTimestamp)
    )
