"""`iiot quarantine`: list, show and retry what was set aside."""

import json
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from iiot_platform.cli.announcement import announced, in_words, left_in_words
from iiot_platform.cli.moments import moment_ms
from iiot_platform.cli.payload_text import payload_text
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import from_ms, hour_start_ms, now_ms
from iiot_platform.core.errors import ConfigError, StorageError, nearest
from iiot_platform.engine.decode import QUARANTINE_REASONS
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.quarantine import Quarantine, QuarantinedRow, RetryReport, retry

_SHORT: Final = 60
_LINE_OPTION = typer.Option("--line", help="One line alone.")
_REASON_OPTION = typer.Option("--reason", help="What was set aside for this reason alone.")
_JSON_OPTION = typer.Option("--json", help="Print JSON.")

quarantine = typer.Typer(help="List, show and retry what was set aside.", no_args_is_help=True)


@quarantine.command("list")
def list_rows(
    context: typer.Context,
    *,
    line: Annotated[str | None, _LINE_OPTION] = None,
    reason: Annotated[str | None, _REASON_OPTION] = None,
    start: Annotated[str | None, typer.Option("--from", help="First receive time.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Receive time behind the last.")] = None,
    most: Annotated[int, typer.Option("--limit", min=1, help="Rows shown per line.")] = 100,
    as_json: Annotated[bool, _JSON_OPTION] = False,
) -> None:
    """List messages that are set aside, in order of receive time."""
    _check_reason(reason)
    with _opened(context, line) as (engine, lines, timezone):
        between = [
            None if text is None else moment_ms(text, timezone=timezone, now_ms=now_ms())
            for text in (start, end)
        ]
        found: list[QuarantinedRow] = []
        cut = False
        for name in lines:
            rows = Quarantine(engine.ledger, engine.store, name).rows(
                reason=reason, start_ms=between[0], end_ms=between[1]
            )
            found += islice(rows, most)
            cut = cut or next(rows, None) is not None
    if as_json:
        typer.echo(json.dumps([_values(row) for row in found], indent=2, ensure_ascii=False))
        return
    table = Table(title="quarantine", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("line", overflow="fold")
    table.add_column("offset", justify="right", no_wrap=True)
    table.add_column("received", no_wrap=True)
    for heading in ("reason", "topic", "payload"):
        table.add_column(heading, overflow="fold")
    for row in found:
        cells = (
            row.line,
            str(row.offset),
            f"{from_ms(row.received):%Y-%m-%d %H:%M:%S}",
            row.reason,
            payload_text(row.topic.encode("utf-8", "surrogatepass"), _SHORT),
            payload_text(row.payload, _SHORT),
        )
        table.add_row(*(escape(cell) for cell in cells))
    console = Console(highlight=False)
    console.print(table)
    if cut:
        console.print(f"there are more; --limit shows more than {most} of a line")


@quarantine.command()
def show(
    context: typer.Context,
    *,
    line: Annotated[str, typer.Option(help="The line.")],
    offset: Annotated[int, typer.Option(min=0, help="Offset of the message in the log.")],
    as_json: Annotated[bool, _JSON_OPTION] = False,
) -> None:
    """Show one message that is set aside, whole."""
    with _opened(context, line) as (engine, (name,), _):
        row = Quarantine(engine.ledger, engine.store, name).at(offset)
    if row is None:
        raise StorageError(
            f"offset {offset} of line '{name}' is not set aside; `iiot log show` shows the record"
        )
    if as_json:
        typer.echo(json.dumps(_values(row), indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for label, text in (
        ("line", row.line),
        ("offset", str(row.offset)),
        ("received", _time(row.received)),
        ("topic", payload_text(row.topic.encode("utf-8", "surrogatepass"))),
        ("reason", row.reason),
        ("detail", payload_text(row.detail.encode("utf-8", "surrogatepass"))),
        ("run", row.run_id),
        ("settings", row.config_version),
        ("payload", payload_text(row.payload, len(row.payload))),
    ):
        console.print(f"[bold]{label:>9}[/bold]  {escape(text)}", soft_wrap=True)


@quarantine.command("retry")
def retry_rows(
    context: typer.Context,
    *,
    line: Annotated[str | None, _LINE_OPTION] = None,
    reason: Annotated[str | None, _REASON_OPTION] = None,
    as_json: Annotated[bool, _JSON_OPTION] = False,
) -> None:
    """Decode what is set aside under the plant file as it is now, and compute its hours anew."""
    _check_reason(reason)
    run_id = f"retry-{uuid.uuid4()}"
    reports: list[RetryReport] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        _opened(context, line) as (engine, lines, _),
        Progress(
            *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=as_json
        ) as shown,
    ):
        for name in lines:
            task = shown.add_task(escape(name), total=None)

            def advance(report: RetryReport, task: TaskID = task) -> None:
                total = len(report.hours) + report.following
                shown.update(task, completed=len(report.computed), total=total)

            reports.append(retry(engine, name, run_id=run_id, reason=reason, on_hour=advance))
            shown.update(task, total=len(reports[-1].computed))
        computed = [found.settled for report in reports for found in report.computed]
        told = announced(Settings.from_environ(context.obj).home, engine, run_id, computed)
    if as_json:
        values = {
            "run_id": run_id,
            "told_to_dagster": told,
            "lines": [_report(report) for report in reports],
        }
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for report in reports:
        console.print(_sentence(report), soft_wrap=True)
        if report.left:
            console.print(f"  {left_in_words(report.left)}", soft_wrap=True)
    console.print(in_words(run_id, told), soft_wrap=True)


@contextmanager
def _opened(context: typer.Context, line: str | None) -> Iterator[tuple[Engine, list[str], str]]:
    """The engine, the lines that are asked for, and the plant's time zone."""
    settings = Settings.from_environ(context.obj)
    plant = load_plant(settings.plant_path, context.obj)
    lines = list(plant.line_names) if line is None else [plant.line(line).name]
    with closing(Engine(settings.home, plant, sinks=settings.sinks)) as engine:
        yield engine, lines, plant.timezone


def _check_reason(reason: str | None) -> None:
    if reason is not None and reason not in QUARANTINE_REASONS:
        raise ConfigError(f"no reason is called '{reason}'; {nearest(reason, QUARANTINE_REASONS)}")


def _values(row: QuarantinedRow) -> dict[str, Any]:
    try:
        body: dict[str, str] = {"payload": row.payload.decode("utf-8")}
    except UnicodeDecodeError:
        body = {"payload_hex": row.payload.hex()}
    kept = {name: value for name, value in row._asdict().items() if name != "payload"}
    return kept | {"received": _time(row.received)} | body


def _report(report: RetryReport) -> dict[str, Any]:
    return {
        "line": report.line,
        "tried": report.tried,
        "decoded": report.decoded,
        "stays": dict(report.stays),
        "gone": report.gone,
        "hours": [_hour(hour) for hour in report.hours],
        "following_hours": report.following,
        "hours_to_follow": report.left,
    }


def _sentence(report: RetryReport) -> str:
    stays = [f"{count:,} {reason}" for reason, count in report.stays.most_common()]
    if report.gone:
        stays.append(f"{report.gone:,} no longer in the log")
    return escape(
        f"{report.line}: {report.decoded:,} of {report.tried:,} decode now,"
        f" {len(report.hours)} hours computed"
        + (f", and {report.following} that follow from them" if report.following else "")
        + (f"; stay: {', '.join(stays)}" if stays else "")
    )


def _hour(hour: int) -> str:
    return f"{from_ms(hour_start_ms(hour)):%Y-%m-%dT%H:%MZ}"


def _time(ts_ms: int) -> str:
    return f"{from_ms(ts_ms):%Y-%m-%dT%H:%M:%S}.{ts_ms % 1_000:03d}Z"
