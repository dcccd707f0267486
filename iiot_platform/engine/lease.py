"""Leases: what one process at a time should do, held until done or until their time is over.

A lease saves work and keeps order between processes that behave; what must be right whatever
happens rests on the commit's compare and swap.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from iiot_platform.core.clock import MS_PER_S, now_ms
from iiot_platform.engine import ledger_schema as db
from iiot_platform.engine.errors import LedgerError
from iiot_platform.engine.ledger import Ledger


@contextmanager
def lease(
    ledger: Ledger, name: str, seconds: float, *, clock: Callable[[], int] = now_ms
) -> Iterator[bool]:
    """Holds a lease for the length of a block; False where another process holds it.

    Args:
        ledger: where leases are kept.
        name: what is leased, for example `drain:line1`.
        seconds: when it ends by itself, should this process die; longer than the work takes.
        clock: Unix milliseconds.

    Raises:
        LedgerError: the database refuses.
    """
    holder = uuid.uuid4().hex
    held = _take(ledger, name, holder, clock(), seconds)
    try:
        yield held
    finally:
        if held:
            release(ledger, name, holder)


def claim(ledger: Ledger, name: str, holder: str, *, now: int, seconds: float) -> bool:
    """Takes or renews a lease that ends by itself; False where another one holds it.

    Raises:
        LedgerError: the database refuses.
    """
    return _take(ledger, name, holder, now, seconds)


def release(ledger: Ledger, name: str, holder: str) -> None:
    """Gives a lease back; nothing where it is another one's by now.

    Raises:
        LedgerError: the database refuses.
    """
    with ledger.transaction(name) as connection:
        connection.execute(
            sa.delete(db.LEASES).where(db.LEASES.c.name == name, db.LEASES.c.holder == holder)
        )


def _take(ledger: Ledger, name: str, holder: str, now: int, seconds: float) -> bool:
    values = {"holder": holder, "expires_ms": now + int(seconds * MS_PER_S)}
    free = (db.LEASES.c.expires_ms <= now) | (db.LEASES.c.holder == holder)
    try:
        with ledger.transaction(name) as connection:
            taken = connection.execute(
                sa.update(db.LEASES).where(db.LEASES.c.name == name, free).values(**values)
            )
            if taken.rowcount:
                return True
            known = sa.select(db.LEASES.c.name).where(db.LEASES.c.name == name)
            if connection.execute(known).first() is not None:
                return False
            connection.execute(sa.insert(db.LEASES).values(name=name, **values))
            return True
    except LedgerError as error:
        if isinstance(error.__cause__, sa.exc.IntegrityError):  # another one was first
            return False
        raise
