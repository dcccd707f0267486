"""What the platform needs of the log no longer, told to the buffer (`core/consumption.py`)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import sqlalchemy as sa

from iiot_platform.core.consumption import Consumption, read_consumption, write_consumption
from iiot_platform.core.paths import Home
from iiot_platform.engine import ledger_schema as db

if TYPE_CHECKING:
    from iiot_platform.engine.engine import Engine


def consumption(engine: "Engine", line: str) -> Consumption:
    """How far a line was consumed.

    Needed is what lies behind the watermark, and every record of an hour that is open, was not
    computed whole since it has closed, or must be computed again: a late record makes its hour
    dirty, and counts from there. How late records may come does not matter: an hour that was
    settled is computed again from its readings and from the late records, which are new.

    Raises:
        StorageError: the ledger can not be read.
    """
    # before the hours: those that a batch begins meanwhile lie behind it
    watermark = engine.ledger.watermark(line)
    open_hours = (hour for hour in engine.ledger.hours(line) if engine.is_open(hour))
    needed = {*open_hours, *engine.unsettled_hours(line), *engine.dirty_hours(line)}
    query = (
        sa.select(db.RANGES.c.hour, sa.func.min(db.RANGES.c.lo))
        .where(db.RANGES.c.line == line)
        .group_by(db.RANGES.c.hour)
    )
    with engine.ledger.reading() as connection:
        lowest = [int(lo) for hour, lo in connection.execute(query) if hour in needed]
    return Consumption(watermark, min((watermark, *lowest)))


def publish(home: Home, engine: "Engine", lines: Iterable[str]) -> dict[str, Consumption]:
    """Tells the buffer how far lines were consumed; what it was told of others stays.

    Raises:
        StorageError: the ledger can not be read, or the file not be written.
    """
    found = {line: consumption(engine, line) for line in lines}
    known, _ = read_consumption(home)
    write_consumption(home, known | found)
    return found
