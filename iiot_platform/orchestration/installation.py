"""What the assets and sensors work on: one plant's engine and its databases, opened when needed."""

import logging
from collections.abc import Callable, Mapping
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
    """A database that is brought up to date from its outbox in the ledger."""

    def due(self, line: str) -> bool:
        """True where something of the line is pending and may be tried now."""

    def behind(self, line: str) -> bool:
        """True where so much is due that live runs would take long over it."""

    def drain(self, line: str, deadline_s: float, *, wait_s: float = 0.0) -> "DrainReport":
        """Hand over what is pending, for a bounded time; waits for another run that is at it."""


Deliveries = Mapping[str, Callable[[Engine], Delivery]]
"""By the name of a sink, what makes the delivery to it from an engine."""


class Installation:
    """The engine and the databases of one plant; nothing is opened before it is asked for.

    Args:
        settings: where state lives and which servers there are.
        plant: the plant file.
        deliveries: per sink, what makes its delivery from the engine; empty: there is no database.
        clock: Unix milliseconds.
    """

    def __init__(
        self,
        settings: Settings,
        plant: Plant,
        *,
        deliveries: Deliveries | None = None,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self.settings = settings
        self.plant = plant
        self.clock = clock
        self._deliveries = dict(deliveries or {})

    @cached_property
    def engine(self) -> Engine:
        """The engine; its ledger is made where there is none."""
        return Engine(self.settings.home, self.plant, sinks=self.sinks, clock=self.clock)

    @cached_property
    def deliveries(self) -> dict[str, Delivery]:
        """The delivery to each sink, by its name."""
        return {name: make(self.engine) for name, make in self._deliveries.items()}

    @property
    def sinks(self) -> tuple[str, ...]:
        """The names of the sinks; opens nothing."""
        return tuple(self._deliveries)


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
