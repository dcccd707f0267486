"""`iiot log`: verify the capture log, list its segments, show its records."""

import json
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from iiot_platform.cli.app import EXIT_FAILURE
from iiot_platform.cli.payload_text import payload_text
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import from_ms
from iiot_platform.core.errors import StorageError, nearest
from iiot_platform.engine.log_reader import LogReader
from iiot_platform.engine.log_verify import LineVerdict, SealedLog

_US_PER_MS: Final = 1_000
_MOST_RECORDS: Final = 10_000

log = typer.Typer(
    help="Verify the capture log, list it and show its records.", no_args_is_help=True
)


@log.command()
def verify(
    context: typer.Context,
    *,
    line: Annotated[str | None, typer.Option(help="One line alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check every segment's hash, offsets and chain of records; exit 1 where one is broken."""
    sealed = SealedLog(Settings.from_environ(context.obj).home)
    lines = _lines(sealed, line)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    verdicts = []
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=as_json
    ) as shown:
        for name in lines:
            segments = sealed.segments(name)
            records = sum(segment.hi - segment.lo for segment in segments)
            task = shown.add_task(escape(name), total=records)
            verdicts.append(sealed.verify(name, lambda n, task=task: shown.advance(task, n)))  # type: ignore[misc] # the default binds the line's own task
    if as_json:
        values = [_values(verdict) for verdict in verdicts]
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        for verdict in verdicts:
            console.print(_sentence(verdict), soft_wrap=True)
    if any(verdict.damage for verdict in verdicts):
        raise typer.Exit(EXIT_FAILURE)


@log.command("ls")
def list_segments(
    context: typer.Context,
    *,
    line: Annotated[str | None, typer.Option(help="One line alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the sealed segments."""
    sealed = SealedLog(Settings.from_environ(context.obj).home)
    found = [(name, segment) for name in _lines(sealed, line) for segment in sealed.segments(name)]
    if as_json:
        values = [
            {
                "line": name,
                **segment._asdict(),
                "min_received": _time(segment.min_received),
                "max_received": _time(segment.max_received),
            }
            for name, segment in found
        ]
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    table = Table(title="segments", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("line", overflow="fold")
    for heading in ("offset", "records", "bytes"):
        table.add_column(heading, justify="right")
    table.add_column("received from", no_wrap=True)
    table.add_column("file", overflow="fold")
    for name, segment in found:
        table.add_row(
            escape(name),
            *(f"{n:,}" for n in (segment.lo, segment.hi - segment.lo, segment.bytes)),
            _time(segment.min_received),
            escape(segment.path),
        )
    Console(highlight=False).print(table)


@log.command()
def show(
    context: typer.Context,
    *,
    line: Annotated[str, typer.Option(help="The line.")],
    offset: Annotated[int, typer.Option(min=0, help="Offset of the first record.")],
    count: Annotated[int, typer.Option(min=1, max=_MOST_RECORDS, help="How many records.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show records as they were captured; control characters are escaped, other bytes are hex."""
    home = Settings.from_environ(context.obj).home
    (name,) = _lines(SealedLog(home), line)
    reader = LogReader(home)
    head = reader.head(name)
    if offset >= head:
        raise StorageError(f"line '{name}' has records up to offset {head - 1}; got {offset}")
    records = reader.read(name, [(offset, min(offset + count, head))]).to_pylist()
    if as_json:
        typer.echo(json.dumps([_record(r) for r in records], indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for record in records:
        marks = [mark for mark in ("retain", "dup") if record[mark]]
        head_line = f"{record['offset']} {record['received_ts']:%Y-%m-%dT%H:%M:%S.%fZ}"
        topic = payload_text(record["topic"].encode("utf-8", "surrogatepass"))
        console.print(
            f"[bold]{escape(head_line)}[/bold] {escape(topic)}"
            f" {escape(' '.join([record['source'], *marks]))}",
            soft_wrap=True,
        )
        console.print(f"  {escape(payload_text(record['payload']))}", soft_wrap=True)


def _lines(sealed: SealedLog, line: str | None) -> list[str]:
    known = sealed.lines()
    if line is None:
        return known
    if line not in known:
        raise StorageError(f"the log has no line '{line}'; {nearest(line, known)}")
    return [line]


def _values(verdict: LineVerdict) -> dict[str, Any]:
    return {
        "line": verdict.line,
        "sound": verdict.damage is None,
        "segments": verdict.segments,
        "records": verdict.records,
        "bytes": verdict.bytes,
        "head": verdict.head,
        "chain_hash": verdict.chain_hash,
        "damage": None if verdict.damage is None else verdict.damage._asdict(),
    }


def _sentence(verdict: LineVerdict) -> str:
    sound = f"{verdict.records:,} records in {verdict.segments:,} segments, {verdict.bytes:,} bytes"
    name = f"[bold]{escape(verdict.line)}[/bold]"
    damage = verdict.damage
    if damage is None:
        return f"{name}: [green]sound[/green], {sound}, chain {verdict.chain_hash[:16]}…"
    place = f"[{damage.lo}, {damage.hi}) ({damage.kind.replace('_', ' ')}): {damage.detail}"
    return (
        f"{name}: [red]broken[/red] at offsets {escape(place)}; file {escape(damage.path)};"
        f" before it {sound} are sound, what lies behind it was not checked"
    )


def _record(record: dict[str, Any]) -> dict[str, Any]:
    payload: bytes = record["payload"]
    try:
        body: dict[str, str] = {"payload": payload.decode("utf-8")}
    except UnicodeDecodeError:
        body = {"payload_hex": payload.hex()}
    return {
        name: value.isoformat() if name.endswith("_ts") and value is not None else value
        for name, value in record.items()
        if name != "payload"
    } | body


def _time(us: int) -> str:
    return f"{from_ms(us // _US_PER_MS):%Y-%m-%dT%H:%M:%SZ}"
