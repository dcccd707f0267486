"""`iiot sink`: where the databases behind the tables stand, and how they are filled anew."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from iiot_platform.cli.sink_access import AsJson, Chosen, Databases, Lines, NoDatabaseError, opened
from iiot_platform.cli.sink_rebuild import rebuild
from iiot_platform.config.settings import SinkSettings
from iiot_platform.core.clock import from_ms, partition_key
from iiot_platform.core.errors import ConfigError, SinkError
from iiot_platform.engine.outbox import LedgerOutbox
from iiot_platform.sinks.opening import open_sink
from iiot_platform.sinks.sink import Server

sink = typer.Typer(
    help="Show, list what was refused, and fill anew the databases behind the tables.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
sink.command("rebuild")(rebuild)


class StillConfiguredError(ConfigError):
    """What a configured database has not been given is not dropped: it would be taken up again."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        reason = "is configured" if name in known else "is not known"
        super().__init__(
            f"sink '{name}' {reason}; only what is left of one that is configured no longer can be"
            " dropped"
        )


@sink.command("status")
def status(
    context: typer.Context, *, chosen: Chosen = None, line: Lines = None, as_json: AsJson = False
) -> None:
    """Show which databases there are, and what each has not been given yet, per line."""
    with opened(context) as behind:
        lines = behind.lines(line)
        asked = [] if chosen is None and not behind.databases else behind.chosen(chosen)
        found: list[dict[str, Any]] = [
            {
                "sink": one.name,
                "server": _server(one.settings),
                "lines": [_standing(one.outbox, name) for name in lines],
            }
            for one in asked
        ]
        left = [_leftover(behind, name) for name in (behind.left if chosen is None else ())]
        if not found and not left:
            raise NoDatabaseError
    if as_json:
        shown = {"sinks": found, "not_configured": left}
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    for one in found:
        _show(one["server"], one["lines"])
    for one in left:
        typer.echo(
            f"{one['sink']} is configured no longer: {one['pending']:,} entries are left of it,"
            f" {one['rejected']:,} refused; 'iiot sink drop --sink {one['sink']}' forgets them"
        )


def _show(server: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> None:
    if server["error"]:
        typer.echo(f"away: {server['error']}")
    else:
        how = "deletes" if server["can_delete"] else "can not delete; rows are marked as deleted"
        version = server["version"] or "of an unknown version"
        typer.echo(f"{server['product']} {version} answers; it {how}")
    for found in lines:
        typer.echo(
            f"{found['line']}: {found['pending']:,} entries to write,"
            f" {found['rejected']:,} refused and set aside"
        )
        if found["missing_hours"]:
            typer.echo(
                f"  {found['missing_hours']:,} hours changed while it was not configured; the next"
                " run takes them up whole"
            )
        if found["error"]:
            again = from_ms(found["retry_at_ms"])
            typer.echo(
                f"  {found['failures']} failures, next try at {again:%H:%M:%S} UTC:"
                f" {found['error']}"
            )


def _server(settings: SinkSettings) -> dict[str, Any]:
    with open_sink(settings, retry_for_s=0.5) as asked:
        try:
            return {**asked.server()._asdict(), "error": None}
        except SinkError as error:
            return {**dict.fromkeys(Server._fields), "error": str(error)}


def _leftover(behind: Databases, name: str) -> dict[str, Any]:
    outbox = LedgerOutbox(behind.engine.ledger, behind.engine.store, name)
    lines = outbox.lines()
    return {
        "sink": name,
        "pending": sum(map(outbox.backlog, lines)),
        "rejected": sum(len(outbox.rejected(line)) for line in lines),
    }


@sink.command("drop")
def drop(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Option("--sink", help="A database that is configured no longer.")],
    as_json: AsJson = False,
) -> None:
    """Forget what is left of a database that is configured no longer; it itself is not touched.

    Configured again, it is given every hour that stands.
    """
    with opened(context) as behind:
        if name not in behind.left:
            raise StillConfiguredError(name, behind.databases)
        outbox = LedgerOutbox(behind.engine.ledger, behind.engine.store, name)
        gone = sum(outbox.forget(line) for line in outbox.lines())
    typer.echo(json.dumps({"dropped": gone}) if as_json else f"{name}: {gone:,} entries dropped")


def _standing(outbox: LedgerOutbox, line: str) -> dict[str, Any]:
    return {
        "line": line,
        "pending": outbox.backlog(line),
        "missing_hours": len(outbox.missing(line)),
        "rejected": len(outbox.rejected(line)),
        "failures": outbox.failures(line),
        "retry_at_ms": outbox.retry_at(line),
        "error": outbox.last_error(line),
    }


@sink.command("rejected")
def rejected(
    context: typer.Context, *, chosen: Chosen = None, line: Lines = None, as_json: AsJson = False
) -> None:
    """List what the databases refused: table, hour, row, and their own words.

    'iiot sink rebuild' tries an hour again once the cause is mended.
    """
    with opened(context) as behind:
        found = [
            {
                "sink": one.name,
                "line": name,
                "table": entry.table,
                "hour": partition_key(entry.hour),
                "operation": entry.operation,
                "reason": words,
            }
            for one in behind.chosen(chosen)
            for name in behind.lines(line)
            for entry, words in one.outbox.rejected(name)
        ]
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for one in found:
        where = f"{one['sink']}, {one['line']}, {one['table']}, {one['hour']}"
        typer.echo(f"{where}: {one['reason']}")
    if not found:
        typer.echo("nothing was refused")
