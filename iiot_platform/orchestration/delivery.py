"""InfluxDB as the database that is brought up to date from the ledger's outbox."""

from collections.abc import Callable
from typing import Final

from iiot_platform.config.settings import InfluxSettings
from iiot_platform.core.clock import now_ms
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.lease import lease
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.outbox import LedgerOutbox
from iiot_platform.orchestration.installation import Delivery
from iiot_platform.sinks.drain import DrainReport, drain
from iiot_platform.sinks.influxdb import InfluxSink

_LONGEST_REQUEST_S: Final = 60.0
"""What has begun when the time is up is finished: delete, write and their repetitions."""


class InfluxDelivery:
    """Hands the outbox of one ledger over to one InfluxDB."""

    def __init__(self, ledger: Ledger, outbox: LedgerOutbox, settings: InfluxSettings) -> None:
        self._ledger = ledger
        self._outbox = outbox
        self._settings = settings

    def due(self, line: str) -> bool:
        """True where something of the line is pending and its back-off is over."""
        retry_at = self._outbox.retry_at(line)
        if retry_at is not None and now_ms() < retry_at:
            return False
        return bool(self._outbox.pending(line, 1))

    def drain(self, line: str, deadline_s: float) -> DrainReport:
        """Hand over what is pending, for a bounded time; nothing while another run does."""
        held_s = deadline_s + _LONGEST_REQUEST_S
        with (
            lease(self._ledger, f"drain:{line}", held_s) as alone,
            InfluxSink(self._settings) as sink,
        ):
            if not alone:
                return DrainReport(remaining=self._outbox.backlog(line))
            return drain(self._outbox, sink, line, deadline_s=deadline_s)


def influx_delivery(settings: InfluxSettings) -> Callable[[Engine], Delivery]:
    """Makes the delivery to one InfluxDB from an engine."""
    return lambda engine: InfluxDelivery(
        engine.ledger, LedgerOutbox(engine.ledger, engine.store), settings
    )
