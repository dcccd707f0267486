"""`iiot sink rebuild`: databases filled anew from the tables."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from iiot_platform.cli.app import EXIT_FAILURE
from iiot_platform.cli.moments import hours_of
from iiot_platform.cli.sink_access import AsJson, Chosen, Database, Lines, opened
from iiot_platform.core import schema
from iiot_platform.core.clock import now_ms
from iiot_platform.core.errors import ConfigError, SinkError
from iiot_platform.engine.happenings import mark_told

_DRAIN_S: Final = 30.0
_LOOK_S: Final = 0.2


class UnknownTableError(ConfigError):
    """A table that does not exist, or that stands in Parquet alone."""

    def __init__(self, name: str) -> None:
        known = ", ".join(table.name for table in schema.measured())
        super().__init__(f"table '{name}' does not stand in databases; those that do: {known}")


class NotRebuiltError(SinkError):
    """A database did not take everything; what is left is in the outbox."""

    def __init__(self, sink: str, line: str, done: int, hours: int, reason: str) -> None:
        super().__init__(
            f"{sink}, line '{line}': {done} of {hours} hours were filled anew, then: {reason}; "
            "call it again for the hours that are left"
        )


@dataclass
class Rebuilt:
    """What became of one line's hours in one database."""

    sink: str
    line: str
    hours: int = 0
    points: int = 0
    seconds: float = 0.0
    rejected: list[str] = field(default_factory=list)


def rebuild(
    context: typer.Context,
    *,
    chosen: Chosen = None,
    line: Lines = None,
    table: Annotated[
        list[str] | None, typer.Option("--table", help="A table; may be repeated. Default: all.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First time: 2026-11-22T08:00, -2h … Default: all.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Time behind the last; default now.")] = (
        None
    ),
    as_json: AsJson = False,
) -> None:
    """Fill the databases anew from the tables, hour by hour, beside live batches.

    Each hour is deleted there and written as the tables have it; what was pending or refused of
    it is done with.
    """
    tables = _tables(table)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    results = []
    with (
        opened(context) as behind,
        Progress(
            *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=as_json
        ) as shown,
    ):
        span = (
            None
            if start is None and end is None
            else hours_of(
                start or "1970-01-01", end, timezone=behind.plant.timezone, now_ms=now_ms()
            )
        )
        for one, name in product(behind.chosen(chosen), behind.lines(line)):
            hours = [h for h in behind.engine.ledger.hours(name) if span is None or h in span]
            task = shown.add_task(escape(f"{one.name} {name}"), total=len(hours))
            done = Rebuilt(one.name, name)
            results.append(done)
            if start is None and hours:
                mark_told(behind.engine.ledger, one.name, name, 0)
            for hour in hours:
                _rebuild_hour(one, done, hour, tables, of=len(hours))
                shown.update(task, advance=1)
    _tell(results, as_json=as_json)
    if any(done.rejected for done in results):
        raise typer.Exit(EXIT_FAILURE)


def _tables(names: Sequence[str] | None) -> list[str] | None:
    known = {table.name for table in schema.measured()}
    for name in names or ():
        if name not in known:
            raise UnknownTableError(name)
    return list(names) if names else None


def _rebuild_hour(
    one: Database, done: Rebuilt, hour: int, tables: Sequence[str] | None, *, of: int
) -> None:
    """One hour at a time, so that what live batches add meanwhile waits for no more than that."""
    begun = time.monotonic()
    entries = one.outbox.rebuild(done.line, [hour], tables)
    while True:
        report = one.delivery.drain(done.line, _DRAIN_S, wait_s=_DRAIN_S)
        done.points += report.points
        left = one.outbox.of(entries)
        if all(words is not None for words in left.values()):
            break
        error = report.error or one.outbox.last_error(done.line)
        if error is not None:
            raise NotRebuiltError(done.sink, done.line, done.hours, of, error)
        time.sleep(_LOOK_S)
    done.hours += 1
    done.seconds += time.monotonic() - begun
    done.rejected += [words for words in left.values() if words is not None]


def _tell(results: Sequence[Rebuilt], *, as_json: bool) -> None:
    if as_json:
        typer.echo(
            json.dumps({"lines": [asdict(done) for done in results]}, indent=2, ensure_ascii=False)
        )
        return
    for done in results:
        typer.echo(
            f"{done.sink}, {done.line}: {done.hours} hours filled anew, {done.points:,} points"
            f" in {done.seconds:.1f} s"
        )
        for words in done.rejected:
            typer.echo(f"  refused: {words}")
