"""The subscription of one connection and what the server has made of our wishes."""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from asyncua import Client, ua

from buffer_service.sources.opcua_nodes import Refused, Target
from buffer_service.sources.opcua_subscription import WatchedSubscription
from iiot_platform.config.opcua_source import OpcUaSource

logger = logging.getLogger(__name__)

KEEP_ALIVE_S: Final = 2.0
"""A subscription with nothing to say speaks this often, which tells unchanged from dead."""
_LIFETIME_S: Final = 120.0
_CREATE_BATCH: Final = 500


class MonitoredNodes:
    """Nodes whose changes the server publishes.

    Attributes:
        topics: of the nodes that the server monitors.
        beat_s: how often the server speaks where nothing changes.
    """

    def __init__(self, client: Client, settings: OpcUaSource) -> None:
        self._client = client
        self._settings = settings
        self._subscription: WatchedSubscription | None = None
        self._publishing_ms = settings.publishing_interval_ms
        self.topics: set[str] = set()
        self.beat_s = KEEP_ALIVE_S

    @property
    def spoken_at(self) -> float:
        """When the server last spoke (monotonic)."""
        subscription = self._subscription
        return time.monotonic() if subscription is None else subscription.spoken_at

    async def open(
        self,
        published: Callable[[ua.NotificationMessage, int], Awaitable[None]],
        lose: Callable[[str], None],
    ) -> None:
        """Create the subscription.

        Args:
            published: takes each publication, and the sequence number that was due.
            lose: told when the server has forgotten the subscription.

        Raises:
            ua.UaError: the server refuses.
        """
        settings = self._settings
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = settings.publishing_interval_ms
        beats = max(1, int(1_000 * KEEP_ALIVE_S / settings.publishing_interval_ms))
        parameters.RequestedMaxKeepAliveCount = beats
        parameters.RequestedLifetimeCount = max(
            3 * beats, int(1_000 * _LIFETIME_S / settings.publishing_interval_ms)
        )
        parameters.MaxNotificationsPerPublish = 0
        parameters.PublishingEnabled = True
        subscription = WatchedSubscription(
            self._client.uaclient.session, parameters, published, lose
        )
        self._subscription = subscription
        created = await subscription.init()
        # restored after a cut by asyncua, which knows the ones of its own making alone
        self._client._subscriptions.append(subscription)  # noqa: SLF001 - as create_subscription does
        if created.RevisedPublishingInterval > settings.publishing_interval_ms:
            logger.warning(
                "source '%s': the server publishes every %g ms instead of %g",
                settings.name,
                created.RevisedPublishingInterval,
                settings.publishing_interval_ms,
            )
        self._publishing_ms = created.RevisedPublishingInterval
        beat_s = created.RevisedMaxKeepAliveCount * created.RevisedPublishingInterval / 1_000
        self.beat_s = max(KEEP_ALIVE_S, beat_s)

    async def add(self, targets: Sequence[Target], first: int = 0) -> list[Refused]:
        """Monitor nodes, with handles from `first` on; returns those that the server refuses."""
        refused: list[Refused] = []
        warned: set[str] = set()
        for at in range(0, len(targets), _CREATE_BATCH):
            batch = targets[at : at + _CREATE_BATCH]
            request = ua.CreateMonitoredItemsParameters()
            if self._subscription is not None:
                request.SubscriptionId = self._subscription.subscription_id
            request.TimestampsToReturn = ua.TimestampsToReturn.Both
            request.ItemsToCreate = [
                self._item(handle, target) for handle, target in enumerate(batch, first + at)
            ]
            results = await self._client.uaclient.create_monitored_items(request)
            for target, result in zip(batch, results, strict=True):
                if not result.StatusCode.is_good():
                    refused.append(Refused(target.topic, result.StatusCode.name))
                else:
                    self.topics.add(target.topic)
                    self._check(result, self._publishing_ms, warned)
        return refused

    def _item(self, handle: int, target: Target) -> ua.MonitoredItemCreateRequest:
        item = ua.MonitoredItemCreateRequest()
        item.ItemToMonitor.NodeId = target.node
        item.ItemToMonitor.AttributeId = ua.AttributeIds.Value
        item.MonitoringMode = ua.MonitoringMode.Reporting
        wanted = item.RequestedParameters
        wanted.ClientHandle = handle
        wanted.SamplingInterval = self._settings.sampling_interval_ms
        wanted.QueueSize = self._settings.queue_size
        wanted.DiscardOldest = True
        if self._settings.report == "sample":
            wanted.Filter = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)
        return item

    def _check(
        self, result: ua.MonitoredItemCreateResult, publishing_ms: float, warned: set[str]
    ) -> None:
        """Say what the server made of our wishes where that can lose values, once per kind."""
        settings = self._settings
        sampling_ms = result.RevisedSamplingInterval
        if sampling_ms > settings.sampling_interval_ms and "sampling" not in warned:
            warned.add("sampling")
            logger.warning(
                "source '%s': the server says that it samples every %g ms instead of %g; faster "
                "changes may be missed",
                settings.name,
                sampling_ms,
                settings.sampling_interval_ms,
            )
        fastest_ms = min(sampling_ms or settings.sampling_interval_ms, publishing_ms)
        fastest_ms = min(fastest_ms, settings.sampling_interval_ms)
        least = -int(-2 * publishing_ms // fastest_ms)
        if result.RevisedQueueSize < least and "queue" not in warned:
            warned.add("queue")
            logger.warning(
                "source '%s': the server holds %d values per node instead of %d; at %g/%g ms at "
                "least %d are needed, values will be lost: raise sampling_interval_ms, or the "
                "server's limit",
                settings.name,
                result.RevisedQueueSize,
                settings.queue_size,
                fastest_ms,
                publishing_ms,
                least,
            )
