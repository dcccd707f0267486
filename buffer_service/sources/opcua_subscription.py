"""A subscription that hands over whole publications and says when it is lost."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from asyncua import ua
from asyncua.common.subscription import Subscription


class WatchedSubscription(Subscription):
    """Hands over whole publications, and is lost rather than created again under our feet."""

    def __init__(
        self,
        session: Any,
        parameters: ua.CreateSubscriptionParameters,
        published: Callable[[ua.NotificationMessage, int], Awaitable[None]],
        lose: Callable[[str], None],
    ) -> None:
        super().__init__(session, parameters, handler=None)
        self._published = published
        self._lose = lose
        self._spoken_at = time.monotonic()
        self._busy = False

    @property
    def spoken_at(self) -> float:
        """When the server last spoke (monotonic); now, while what it said is taken."""
        return time.monotonic() if self._busy else self._spoken_at

    def is_stale(self, margin: float) -> bool:  # noqa: ARG002 - the base class's signature
        """Never: whoever watches the connection judges its silence."""
        return False

    async def publish_callback(self, publish_result: ua.PublishResult) -> None:
        """One publication, or a sign of life."""
        self.last_publish_at = self._spoken_at = time.monotonic()
        message = publish_result.NotificationMessage
        expected = 0
        if message.NotificationData:
            if self.last_sequence_number is not None:
                expected = self.last_sequence_number % (2**32 - 1) + 1
            self.last_sequence_number = int(message.SequenceNumber)
        self._busy = True
        try:
            await self._published(message, expected)
        finally:
            self._busy = False
            self._spoken_at = time.monotonic()

    async def recreate(self) -> None:
        """The server has forgotten this subscription."""
        self._lose("the server has forgotten the subscription")
