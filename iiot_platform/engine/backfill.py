"""Hours computed again, in order and beside live batches, and the hours that follow from them."""

from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

from iiot_platform.engine.engine import Engine
from iiot_platform.engine.errors import CommitLostError
from iiot_platform.engine.report import SettleReport
from iiot_platform.engine.swap import RIPPLE

_ATTEMPTS: Final = 5

Under = Literal["keep", "current"]


class Recomputed(NamedTuple):
    """One hour; `follows` where nobody asked for it: a state that it went on from has changed."""

    settled: SettleReport
    follows: bool


def backfill(
    engine: Engine, line: str, hours: Sequence[int], *, run_id: str, settings: Under = "current"
) -> Iterator[Recomputed]:
    """Computes hours whole, oldest first, then those behind them that went on from another state.

    The latter keep their settings. A live batch that changes an hour meanwhile wins; the hour is
    then computed once more. A following hour that is changed again and again stays dirty, and so
    do those behind it.

    Args:
        engine: has the plant whose settings are the current ones.
        line: name of the line.
        hours: the hours.
        run_id: goes on every row.
        settings: `keep` those assigned to the hours, or assign the `current` ones.

    Raises:
        CommitLostError: an hour that was asked for was changed again and again meanwhile.
        StorageError: the log, the tables or the ledger can not be read or written.
    """
    for hour in sorted(hours):
        yield Recomputed(_computed(engine, line, hour, run_id, settings), follows=False)
    # one may cause the next, each in a later hour
    while hours and (following := _following(engine, line, min(hours))) is not None:
        try:
            found = _computed(engine, line, following, run_id, "keep")
        except CommitLostError:
            return
        yield Recomputed(found, follows=True)


def _following(engine: Engine, line: str, first: int) -> int | None:
    """The oldest hour behind one that went on from a state that is another now."""
    dirty = engine.ledger.dirty(line)
    return next(
        (
            hour
            for hour in sorted(dirty)
            if hour > first and any(mark.reason == RIPPLE for _, mark in dirty[hour])
        ),
        None,
    )


def _computed(engine: Engine, line: str, hour: int, run_id: str, settings: Under) -> SettleReport:
    def compute() -> SettleReport:
        kind: Literal["backfill", "rerun"] = "backfill" if settings == "current" else "rerun"
        return engine.rerun(line, hour, run_id=run_id, settings=settings, kind=kind)

    for _ in range(_ATTEMPTS - 1):
        try:
            return compute()
        except CommitLostError:
            continue
    return compute()
