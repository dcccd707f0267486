"""`iiot log`: verify the capture log, list its segments, show its records, carry it elsewhere."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from iiot_platform.cli.app import EXIT_FAILURE
from iiot_platform.cli.log_transfer import export_hours, import_hours, rebuild
from iiot_platform.cli.payload_text import payload_text
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import from_ms
from iiot_platform.core.errors import ConfigError, StorageError, nearest
from iiot_platform.core.paths import Home
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.log_export import read_export, verify_export
from iiot_platform.engine.log_import import Deviation, deviations
from iiot_platform.engine.log_reader import LogReader
from iiot_platform.engine.log_verify import LineVerdict, SealedLog, SealedSegment
from iiot_platform.engine.table_store import TableStore

_US_PER_MS: Final = 1_000
_US_PER_HOUR: Final = 3_600_000_000
_MOST_RECORDS: Final = 10_000

log = typer.Typer(
    help="Verify the capture log, list it, show its records, export, import, rebuild it.",
    no_args_is_help=True,
)
log.command("export")(export_hours)
log.command("import")(import_hours)
log.command("rebuild")(rebuild)


@log.command()
def verify(
    context: typer.Context,
    *,
    line: Annotated[str | None, typer.Option(help="One line alone.")] = None,
    export: Annotated[
        Path | None, typer.Option(help="A folder of 'iiot log export' instead of the log.")
    ] = None,
    computed: Annotated[
        bool, typer.Option("--computed", help="Also: are this home's tables those of the export?")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check every segment's hash, offsets and chain of records; exit 1 where one is broken."""
    home = Settings.from_environ(context.obj).home
    if computed and export is None:
        raise NoExportError
    checks = _of_export(export) if export is not None else _of_log(SealedLog(home), line)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    verdicts = []
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=as_json
    ) as shown:
        for name, records, check in checks:
            task = shown.add_task(escape(name), total=records)
            verdicts.append(check(lambda n, task=task: shown.advance(task, n)))  # type: ignore[misc] # the default binds the line's own task
    found = _compared(home, export) if computed and export is not None else []
    if as_json:
        values = [_values(verdict) for verdict in verdicts]
        if computed:
            values[0]["deviations"] = [one._asdict() for one in found]
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        for verdict in verdicts:
            console.print(_sentence(verdict), soft_wrap=True)
        for one in found:
            console.print(escape(f"{one.hour} {one.what}: {one.detail}"), soft_wrap=True)
        if computed:
            console.print("tables and states differ" if found else "tables and states are the same")
    if found or any(verdict.damage for verdict in verdicts):
        raise typer.Exit(EXIT_FAILURE)


class NoExportError(ConfigError):
    """A comparison was asked for, and with nothing."""

    def __init__(self) -> None:
        super().__init__("compare with what? give --export FOLDER beside --computed")


_Check = Callable[[Callable[[int], None]], LineVerdict]


def _of_log(sealed: SealedLog, line: str | None) -> Iterator[tuple[str, int, _Check]]:
    for name in _lines(sealed, line):
        records = sum(segment.rows for segment in sealed.segments(name))
        yield name, records, partial(sealed.verify, name)


def _of_export(folder: Path) -> Iterator[tuple[str, int, _Check]]:
    export, _ = read_export(folder)
    records = sum(segment.rows for segment in export.segments)
    yield export.line, records, partial(verify_export, folder, export)


def _compared(home: Home, folder: Path) -> list[Deviation]:
    export, _ = read_export(folder)
    ledger = Ledger.of(home)
    try:
        return deviations(ledger, TableStore(home), export)
    finally:
        ledger.close()


@log.command("ls")
def list_segments(
    context: typer.Context,
    *,
    line: Annotated[str | None, typer.Option(help="One line alone.")] = None,
    hours: Annotated[
        bool, typer.Option("--hours", help="One row for all segments of an ingest hour.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the sealed segments: offsets, records, bytes, times, and which are compacted."""
    sealed = SealedLog(Settings.from_environ(context.obj).home)
    names = _lines(sealed, line)
    if hours:
        _list_hours(sealed, names, as_json=as_json)
        return
    found = [(name, segment) for name in names for segment in sealed.segments(name)]
    if as_json:
        values = [
            {
                "line": name,
                **segment._asdict(),
                "min_received": _time(segment.min_received),
                "max_received": _time(segment.max_received),
                "compacted_at": None
                if segment.compacted_at is None
                else _time(segment.compacted_at),
            }
            for name, segment in found
        ]
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    table = _table("segments", "file")
    for name, segment in found:
        _add(table, name, (segment,), segment.path)
    console = Console(highlight=False)
    console.print(table)
    _tell_missing(console, sealed, names)


def _list_hours(sealed: SealedLog, names: Sequence[str], *, as_json: bool) -> None:
    found = [
        (name, tuple(group))
        for name in names
        for _, group in groupby(sealed.segments(name), lambda one: one.min_received // _US_PER_HOUR)
    ]
    if as_json:
        values = [
            {
                "line": name,
                "lo": group[0].lo,
                "hi": group[-1].hi,
                "records": sum(one.rows for one in group),
                "bytes": sum(one.bytes for one in group),
                "min_received": _time(min(one.min_received for one in group)),
                "max_received": _time(max(one.max_received for one in group)),
                "segments": len(group),
                "compacted": _compacted(group),
            }
            for name, group in found
        ]
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    table = _table("ingest hours", "segments")
    for name, group in found:
        _add(table, name, group, str(len(group)))
    console = Console(highlight=False)
    console.print(table)
    _tell_missing(console, sealed, names)


def _table(title: str, last: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("line", overflow="fold")
    for heading in ("offset", "records", "bytes"):
        table.add_column(heading, justify="right")
    table.add_column("received from", no_wrap=True)
    table.add_column("to", no_wrap=True)
    table.add_column("compacted")
    table.add_column(last, overflow="fold")
    return table


def _add(table: Table, name: str, group: Sequence[SealedSegment], last: str) -> None:
    sizes = (group[0].lo, sum(one.rows for one in group), sum(one.bytes for one in group))
    table.add_row(
        escape(name),
        *(f"{n:,}" for n in sizes),
        _time(min(one.min_received for one in group)),
        _time(max(one.max_received for one in group)),
        "yes" if _compacted(group) else "no",
        escape(last),
    )


def _compacted(group: Sequence[SealedSegment]) -> bool:
    return all(one.compacted_at is not None for one in group)


def _tell_missing(console: Console, sealed: SealedLog, names: Sequence[str]) -> None:
    for name in names:
        for hole in sealed.missing(name):
            text = f"{name}: offsets [{hole.lo}, {hole.hi}) are gone: {hole.reason}"
            console.print(escape(text), soft_wrap=True)


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
    if offset < reader.start(name):
        raise StorageError(
            f"line '{name}' has records from offset {reader.start(name)} on, those before were"
            f" deleted by retention; got {offset}"
        )
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
        "start": verdict.start,
        "lost": verdict.lost,
        "chain_hash": verdict.chain_hash,
        "damage": None if verdict.damage is None else verdict.damage._asdict(),
    }


def _sentence(verdict: LineVerdict) -> str:
    sound = f"{verdict.records:,} records in {verdict.segments:,} segments, {verdict.bytes:,} bytes"
    name = f"[bold]{escape(verdict.line)}[/bold]"
    damage = verdict.damage
    if damage is None:
        start = f" from offset {verdict.start} on" if verdict.start else ""
        lost = "".join(f"; offsets [{lo}, {hi}) are lost" for lo, hi in verdict.lost)
        chain = verdict.chain_hash[:16]
        return f"{name}: [green]sound[/green]{start}, {sound}, chain {chain}…{escape(lost)}"
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
