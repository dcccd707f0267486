"""The same hours under other settings, as a shadow beside the result that stands.

Nothing is written: hour by hour the log is decoded and computed under the candidate, the states
are handed on in memory, and only the hour at hand is held.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from iiot_platform.config.line_settings import LineSettings
from iiot_platform.core.names import SeriesKey
from iiot_platform.engine.hour_input import hour_input
from iiot_platform.engine.kept_readings import KeptReadings
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.lifecycle_ledger import LedgerHistory
from iiot_platform.engine.log_reader import LogReader
from iiot_platform.engine.partition import HourRows, compute
from iiot_platform.engine.table_store import TableStore
from iiot_platform.engine.traces import TESTED_TABLES, TestedQuantity, Trace, traces

_ROWS: Final = 200_000
"""Records that are held at a time, about."""


@dataclass(frozen=True)
class ReplayedHour:
    """One hour as it stands and as the candidate computes it.

    Attributes:
        hour: the hour.
        settings: those that the hour stands under.
        standing: the verdicts that stand.
        candidate: the verdicts under the candidate.
    """

    hour: int
    settings: LineSettings
    standing: dict[TestedQuantity, Trace]
    candidate: dict[TestedQuantity, Trace]


class Shadow:
    """Computes hours of one line, oldest first, under settings that nobody has assigned.

    It starts from the states before the first hour, as a backfill would: a state that the
    candidate's settings can not go on from starts anew.

    Args:
        log: the capture log.
        ledger: where states and offset ranges are looked up.
        store: the tables that stand, for readings whose raw records are gone.
        settings: the candidate; it names the line.
        first_hour: the first hour that will be computed.
    """

    def __init__(
        self,
        log: LogReader,
        ledger: Ledger,
        store: TableStore,
        settings: LineSettings,
        first_hour: int,
    ) -> None:
        self._log = log
        self._ledger = ledger
        self._kept = KeptReadings(log, ledger, store, settings.line)
        self._history = LedgerHistory(ledger, settings.line)
        self._settings = settings
        self._first_hour = first_hour
        self._states: dict[SeriesKey, bytes] = {}
        self._asked: set[SeriesKey] = set()

    def compute(self, hour: int) -> HourRows:
        """The rows of an hour.

        Raises:
            StorageError: a record of the hour can not be read.
        """
        line = self._settings.line
        ranges = self._ledger.ranges(line, hour)
        readings = hour_input(
            self._log, self._kept, self._history, hour, ranges, self._settings, rows=_ROWS
        ).readings
        new = set(readings.keys) - self._asked
        stored = self._ledger.states(line, new, before=self._first_hour)
        self._states |= {key: base.state.blob for key, base in stored.items()}
        self._asked |= new
        rows = compute(readings, self._states, self._settings)
        self._states |= {key: state.blob for key, state in rows.states.items()}
        return rows


def replay(
    log: LogReader,
    ledger: Ledger,
    store: TableStore,
    candidate: LineSettings,
    hours: list[int],
) -> Iterator[ReplayedHour]:
    """Each hour as it stands and under the candidate, oldest first.

    Args:
        log: the capture log.
        ledger: what stands.
        store: the tables that stand.
        candidate: the settings to try; they name the line.
        hours: hours that were computed, oldest first.

    Raises:
        StorageError: a record or a table of an hour can not be read.
    """
    if not hours:
        return
    shadow = Shadow(log, ledger, store, candidate, hours[0])
    for hour in hours:
        rows = shadow.compute(hour)
        standing = {
            table.name: store.read(
                table, [file.path for file in ledger.files(candidate.line, table.name, hour)]
            )
            for table in TESTED_TABLES
        }
        yield ReplayedHour(
            hour,
            ledger.assignment(candidate.line, hour) or candidate,
            _traces(standing),
            _traces(rows.tables),
        )


def _traces(tables: dict[str, pa.Table]) -> dict[TestedQuantity, Trace]:
    found: dict[TestedQuantity, Trace] = {}
    for table in TESTED_TABLES:
        if table.name in tables:
            found |= traces(table, tables[table.name])
    return found
