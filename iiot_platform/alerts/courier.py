"""Carries messages from the outbox to one receiver, in order, until it has taken each."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from iiot_platform.alerts.store import CLEAR, AlertStore, Waiting
from iiot_platform.alerts.webhook import RefusedError
from iiot_platform.core.clock import MS_PER_S
from iiot_platform.core.errors import PlatformError, SinkError

logger = logging.getLogger(__name__)

IDLE_S: Final = 0.5
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
REFUSALS: Final = 3
"""Attempts after which a message that is refused as wrong is set aside."""


class Receiver(Protocol):
    """Someone who is told."""

    def deliver(self, waiting: Waiting) -> None:
        """Returns once the message is taken; raises SinkError where it is not."""

    def close(self) -> None:
        """Ends the connection."""


class Courier:
    """One thread for one receiver, so that one that is away keeps nobody else waiting.

    Args:
        name: of the receiver, for the log.
        targets: which messages it takes; the first ones go first.
        store: path of the outbox.
        receiver: made in the thread.
        clock: Unix ms.
        keep_resolved_s: a topic that says `resolved` is cleared so much later; None: never.
        first_pause_s: before the second attempt; doubles up to a minute.
    """

    def __init__(
        self,
        name: str,
        targets: tuple[str, ...],
        store: Path,
        receiver: Callable[[], Receiver],
        *,
        clock: Callable[[], int],
        keep_resolved_s: float | None = None,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._name = name
        self._targets = targets
        self._path = store
        self._make = receiver
        self._clock = clock
        self._keep_resolved_s = keep_resolved_s
        self._first_pause_s = first_pause_s
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"courier-{name}", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def wake(self) -> None:
        """Something new is in the outbox."""
        self._wake.set()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ends behind the message that is under way; the others wait for the next start."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        receiver = self._make()
        pause_s = 0.0
        try:
            with AlertStore(self._path) as store:
                while not self._stop.is_set():
                    try:
                        busy = self._carry(store, receiver)
                    except PlatformError as error:
                        pause_s = self._longer(pause_s, error)
                        self._stop.wait(pause_s)
                    else:
                        if busy and pause_s:
                            logger.info("%s takes alerts again", self._name)
                        pause_s = 0.0 if busy else pause_s
                        if not busy:
                            self._wake.wait(IDLE_S)
                            self._wake.clear()
        finally:
            receiver.close()

    def _longer(self, pause_s: float, error: PlatformError) -> float:
        if not pause_s:
            logger.warning("alerts wait for %s: %s", self._name, error)
        return min(max(2 * pause_s, self._first_pause_s), LONGEST_PAUSE_S)

    def _carry(self, store: AlertStore, receiver: Receiver) -> bool:
        """Delivers the next message; False where there is none."""
        now = self._clock()
        found = (store.next(target, now) for target in self._targets)
        waiting = next((one for one in found if one is not None), None)
        if waiting is None:
            return False
        try:
            receiver.deliver(waiting)
        except RefusedError as error:
            last = waiting.attempts + 1 >= REFUSALS
            store.failed(waiting, refused=str(error) if last else None)
            if last:
                logger.warning("alert %s set aside: %s", waiting.message.id, error)
                return True
            raise
        except SinkError:
            store.failed(waiting)
            raise
        message, keep_s = waiting.message, self._keep_resolved_s
        clear = message.resolved and message.target != CLEAR and keep_s is not None
        at = now + round((keep_s or 0) * MS_PER_S)
        store.delivered(waiting, clear_at_ms=at if clear else None)
        return True
