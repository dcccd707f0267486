"""A sink that is brought up to date from its outbox in the ledger."""

import logging
import time
import uuid
from collections.abc import Callable
from typing import Final

from iiot_platform.config.settings import SinkSettings
from iiot_platform.core import schema
from iiot_platform.core.clock import now_ms
from iiot_platform.core.errors import PlatformError
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.happenings import mark_told, untold
from iiot_platform.engine.lease import claim, release
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.outbox import LedgerOutbox
from iiot_platform.engine.table_store import TableStore
from iiot_platform.sinks.drain import DrainReport, drain
from iiot_platform.sinks.opening import open_sink
from iiot_platform.sinks.sink import OpenSink, Sink

_LONGEST_REQUEST_S: Final = 60.0
"""What has begun when the time is up is finished: delete, write and their repetitions."""
_SLICE_S: Final = 15.0
"""How often a long drain renews its lease: a process that dies holds up the next one no longer."""
_LOOK_S: Final = 0.1
_log = logging.getLogger(__name__)
BEHIND: Final = 100
"""Entries that live runs hand over by the way; a longer backlog is a run's own work."""


class SinkDelivery:
    """Hands the outbox that one ledger has for a sink over to it.

    Args:
        ledger: has the outbox, and what happened.
        store: the table files.
        name: name of the sink.
        opened: makes the sink, for the time of a drain.
    """

    def __init__(
        self, ledger: Ledger, store: TableStore, name: str, opened: Callable[[], OpenSink]
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._name = name
        self._opened = opened
        self._outbox = LedgerOutbox(ledger, store, name)

    def due(self, line: str) -> bool:
        """True where something of the line is pending and its back-off is over."""
        retry_at = self._outbox.retry_at(line)
        if retry_at is not None and now_ms() < retry_at:
            return False
        return bool(self._outbox.pending(line, 1) or self._outbox.missing(line))

    def behind(self, line: str) -> bool:
        """True where so much is due that live runs would take long over it."""
        return self.due(line) and self._outbox.is_longer(line, BEHIND)

    def drain(self, line: str, deadline_s: float, *, wait_s: float = 0.0) -> DrainReport:
        """Hand over what is pending, for a bounded time; nothing while another run does.

        Args:
            line: name of the line.
            deadline_s: after it nothing more is begun.
            wait_s: how long to wait for another run that is at it.
        """
        name, holder = f"drain:{self._name}:{line}", uuid.uuid4().hex
        begun = time.monotonic()
        report = DrainReport()
        hours = self._outbox.take_up(line) if self._outbox.missing(line) else 0
        if hours:
            _log.info("line '%s': %d hours are given to %s whole", line, hours, self._name)
        with self._opened() as sink:
            try:
                while True:
                    slice_s = min(max(begun + deadline_s - time.monotonic(), 0.0), _SLICE_S)
                    held_s = slice_s + _LONGEST_REQUEST_S
                    if claim(self._ledger, name, holder, now=now_ms(), seconds=held_s):
                        report.add(drain(self._outbox, sink, line, deadline_s=slice_s))
                        over = time.monotonic() - begun >= deadline_s
                        if over or report.error is not None or not report.remaining:
                            if report.error is None:
                                self._tell(sink, line)
                            return report
                    elif time.monotonic() - begun >= wait_s:
                        report.remaining = self._outbox.backlog(line)
                        return report
                    else:
                        time.sleep(_LOOK_S)
            finally:
                release(self._ledger, name, holder)

    def _tell(self, sink: Sink, line: str) -> None:
        """Adds what happened for charts to show; what fails is told by the next drain."""
        try:
            found = untold(self._ledger, self._store, self._name, line)
            if found is not None:
                sink.write(schema.EVENTS, found.rows)
                mark_told(self._ledger, self._name, line, found.batch)
        except PlatformError as error:
            _log.warning("line '%s': what happened is not told yet: %s", line, error)


def delivery_to(name: str, settings: SinkSettings) -> Callable[[Engine], SinkDelivery]:
    """Makes the delivery to one database from an engine."""
    return lambda engine: SinkDelivery(
        engine.ledger, engine.store, name, lambda: open_sink(settings)
    )
