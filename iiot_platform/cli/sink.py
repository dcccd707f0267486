"""`iiot sink`: where the database behind the tables stands, and how it is filled anew."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from iiot_platform.cli.app import EXIT_FAILURE
from iiot_platform.cli.moments import hours_of
from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import InfluxSettings, Settings
from iiot_platform.core import schema
from iiot_platform.core.clock import from_ms, now_ms, partition_key
from iiot_platform.core.errors import ConfigError, SinkError
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.happenings import mark_told
from iiot_platform.engine.outbox import LedgerOutbox
from iiot_platform.orchestration.delivery import InfluxDelivery
from iiot_platform.sinks.influxdb import InfluxSink

sink = typer.Typer(
    help="Show, list what was refused, and fill anew the database behind the tables.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_DRAIN_S: Final = 30.0
_LOOK_S: Final = 0.2

Lines = Annotated[
    list[str] | None, typer.Option("--line", help="A line; may be repeated. Default: all.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class NoDatabaseError(ConfigError):
    """There is no database to speak of."""

    def __init__(self) -> None:
        super().__init__("no InfluxDB is configured; set INFLUX_URL (and INFLUX_TOKEN)")


class UnknownTableError(ConfigError):
    """A table that does not exist, or that stands in Parquet alone."""

    def __init__(self, name: str) -> None:
        known = ", ".join(table.name for table in schema.measured())
        super().__init__(f"table '{name}' does not stand in InfluxDB; those that do: {known}")


class NotRebuiltError(SinkError):
    """The database did not take everything; what is left is in the outbox."""

    def __init__(self, line: str, done: int, hours: int, reason: str) -> None:
        super().__init__(
            f"line '{line}': {done} of {hours} hours were filled anew, then: {reason}; "
            "call it again for the hours that are left"
        )


@dataclass
class Rebuilt:
    """What became of one line's hours."""

    line: str
    hours: int = 0
    points: int = 0
    seconds: float = 0.0
    rejected: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Behind:
    """The database of one installation, and what it is filled from."""

    plant: Plant
    influx: InfluxSettings
    outbox: LedgerOutbox
    delivery: InfluxDelivery
    engine: Engine

    def lines(self, chosen: Sequence[str] | None) -> list[str]:
        if not chosen:
            return list(self.plant.line_names)
        return [self.plant.line(name).name for name in chosen]


@contextmanager
def _behind(context: typer.Context) -> Iterator[_Behind]:
    installed = Settings.from_environ(context.obj)
    if installed.influx is None:
        raise NoDatabaseError
    plant = load_plant(installed.plant_path, context.obj)
    with closing(Engine(installed.home, plant, sinks=True)) as engine:
        outbox = LedgerOutbox(engine.ledger, engine.store)
        delivery = InfluxDelivery(engine.ledger, engine.store, outbox, installed.influx)
        yield _Behind(plant, installed.influx, outbox, delivery, engine)


@sink.command("status")
def status(context: typer.Context, *, line: Lines = None, as_json: AsJson = False) -> None:
    """Show which InfluxDB it is, and what it has not been given yet, per line."""
    with _behind(context) as behind:
        server = _server(behind.influx)
        lines = [_standing(behind.outbox, name) for name in behind.lines(line)]
    if as_json:
        typer.echo(json.dumps({"server": server, "lines": lines}, indent=2, ensure_ascii=False))
        return
    if server["error"]:
        typer.echo(f"away: {server['error']}")
    else:
        how = "deletes" if server["can_delete"] else "can not delete; rows are marked as deleted"
        typer.echo(f"InfluxDB {server['version'] or 'of an unknown version'} answers; it {how}")
    for found in lines:
        typer.echo(
            f"{found['line']}: {found['pending']:,} entries to write,"
            f" {found['rejected']:,} refused and set aside"
        )
        if found["error"]:
            again = from_ms(found["retry_at_ms"])
            typer.echo(
                f"  {found['failures']} failures, next try at {again:%H:%M:%S} UTC:"
                f" {found['error']}"
            )


def _server(settings: InfluxSettings) -> dict[str, Any]:
    with InfluxSink(settings, retry_for_s=0.5) as asked:
        try:
            return {"version": asked.version, "can_delete": asked.can_delete, "error": None}
        except SinkError as error:
            return {"version": None, "can_delete": None, "error": str(error)}


def _standing(outbox: LedgerOutbox, line: str) -> dict[str, Any]:
    return {
        "line": line,
        "pending": outbox.backlog(line),
        "rejected": len(outbox.rejected(line)),
        "failures": outbox.failures(line),
        "retry_at_ms": outbox.retry_at(line),
        "error": outbox.last_error(line),
    }


@sink.command("rejected")
def rejected(context: typer.Context, *, line: Lines = None, as_json: AsJson = False) -> None:
    """List what the database refused: table, hour, row, and its own words.

    'iiot sink rebuild' tries an hour again once the cause is mended.
    """
    with _behind(context) as behind:
        found = [
            {
                "line": name,
                "table": entry.table,
                "hour": partition_key(entry.hour),
                "operation": entry.operation,
                "reason": words,
            }
            for name in behind.lines(line)
            for entry, words in behind.outbox.rejected(name)
        ]
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for one in found:
        typer.echo(f"{one['line']}, {one['table']}, {one['hour']}: {one['reason']}")
    if not found:
        typer.echo("nothing was refused")


@sink.command("rebuild")
def rebuild(
    context: typer.Context,
    *,
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
    """Fill the database anew from the tables, hour by hour, beside live batches.

    Each hour is deleted there and written as the tables have it; what was pending or refused of
    it is done with.
    """
    tables = _tables(table)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    results = []
    with (
        _behind(context) as behind,
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
        for name in behind.lines(line):
            hours = [h for h in behind.engine.ledger.hours(name) if span is None or h in span]
            task = shown.add_task(escape(name), total=len(hours))
            done = Rebuilt(name)
            results.append(done)
            if start is None and hours:
                mark_told(behind.engine.ledger, name, 0)
            for hour in hours:
                _rebuild_hour(behind, done, hour, tables, of=len(hours))
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
    behind: _Behind, done: Rebuilt, hour: int, tables: Sequence[str] | None, *, of: int
) -> None:
    """One hour at a time, so that what live batches add meanwhile waits for no more than that."""
    begun = time.monotonic()
    entries = behind.outbox.rebuild(done.line, [hour], tables)
    while True:
        report = behind.delivery.drain(done.line, _DRAIN_S, wait_s=_DRAIN_S)
        done.points += report.points
        left = behind.outbox.of(entries)
        if all(words is not None for words in left.values()):
            break
        error = report.error or behind.outbox.last_error(done.line)
        if error is not None:
            raise NotRebuiltError(done.line, done.hours, of, error)
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
            f"{done.line}: {done.hours} hours filled anew, {done.points:,} points"
            f" in {done.seconds:.1f} s"
        )
        for words in done.rejected:
            typer.echo(f"  refused: {words}")
