"""What the assets and sensors work on: one plant's engine and its database, opened when needed."""

import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from iiot_platform.config.plant import Plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import now_ms
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.errors import CommitLostError

if TYPE_CHECKING:  # the client behind it takes long to import, and is not always needed
    from iiot_platform.sinks.drain import DrainReport

_COMMIT_TRIES: Final = 4
_Done = TypeVar("_Done")

_log = logging.getLogger(__name__)


class Delivery(Protocol):
    """A database that is brought up to date from the ledger's outbox."""

    def due(self, line: str) -> bool:
        """True where something of the line is pending and may be tried now."""

    def behind(self, line: str) -> bool:
        """True where so much is due that live runs would take long over it."""

    def drain(self, line: str, deadline_s: float, *, wait_s: float = 0.0) -> "DrainReport":
        """Hand over what is pending, for a bounded time; waits for another run that is at it."""


class Installation:
    """The engine and the database of one plant; nothing is opened before it is asked for.

    Args:
        settings: where state lives and which servers there are.
        plant: the plant file.
        delivery: makes the delivery to the database from the engine; None: there is no database.
        clock: Unix milliseconds.
    """

    def __init__(
        self,
        settings: Settings,
        plant: Plant,
        *,
        delivery: Callable[[Engine], Delivery] | None = None,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self.settings = settings
        self.plant = plant
        self.clock = clock
        self._make_delivery = delivery

    @cached_property
    def engine(self) -> Engine:
        """The engine; its ledger is made where there is none."""
        return Engine(
            self.settings.home, self.plant, sinks=self._make_delivery is not None, clock=self.clock
        )

    @cached_property
    def delivery(self) -> Delivery | None:
        """The delivery to the database, None where there is none."""
        return None if self._make_delivery is None else self._make_delivery(self.engine)

    @property
    def has_delivery(self) -> bool:
        """True where there is a database; opens nothing."""
        return self._make_delivery is not None


def until_committed(compute: Callable[[], _Done]) -> _Done:
    """The result of a computation, begun anew where another run has committed meanwhile.

    Raises:
        CommitLostError: it lost every time.
    """
    for _ in range(_COMMIT_TRIES - 1):
        try:
            return compute()
        except CommitLostError as error:
            _log.info("begun anew: %s", error)
    return compute()
