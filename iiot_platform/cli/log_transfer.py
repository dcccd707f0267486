"""`iiot log export`, `import` and `rebuild`: the capture log between machines and after damage."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from buffer_service.log import rebuild as repair
from buffer_service.log.intake import take_in
from buffer_service.log.lock import WriterLock
from buffer_service.log.manifest import Segment
from iiot_platform.cli.moments import hours_of
from iiot_platform.config.active_plant import active_path
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import now_ms, partition_key
from iiot_platform.core.errors import StorageError
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.log_export import (
    Exporter,
    read_export,
    rerun_command,
    verify_export,
)
from iiot_platform.engine.log_import import adopt, collide
from iiot_platform.engine.log_verify import SealedLog
from iiot_platform.engine.table_store import TableStore

Tell = Callable[[int, int], None]
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def export_hours(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    *,
    line: Annotated[str, typer.Option(help="The line.")],
    start: Annotated[
        str, typer.Option("--from", help="First time: 2026-11-22T08:00, 08:00, -2h …")
    ],
    end: Annotated[str | None, typer.Option("--to", help="Time behind the last; default now.")] = (
        None
    ),
    as_json: _JSON = False,
) -> None:
    """Write hours to a folder from which another machine computes them to the same bits."""
    settings = Settings.from_environ(context.obj)
    if not Ledger.is_at(settings.home):
        raise StorageError(f"'{settings.home.root}' holds no ledger: nothing was computed there")
    kept = active_path(settings.home)
    plant_path = kept if kept.exists() else settings.plant_path
    timezone = (
        load_plant(plant_path, context.obj, folder=settings.plant_path.parent).timezone
        if plant_path.exists()
        else "UTC"
    )
    wanted = hours_of(start, end, timezone=timezone, now_ms=now_ms())
    ledger = Ledger.of(settings.home)
    try:
        exporter = Exporter(
            SealedLog(settings.home),
            settings.home.capture,
            ledger,
            TableStore(settings.home),
            line,
        )
        with _progress("segments", shown=not as_json) as tell:
            found = exporter.export(
                [hour for hour in ledger.hours(line) if hour in wanted],
                folder,
                plant=plant_path.read_bytes() if plant_path.exists() else None,
                on_segments=tell,
            )
    finally:
        ledger.close()
    unsettled = [key for key, hour in found.outcome.items() if not hour.settled]
    values: dict[str, Any] = {
        "folder": str(folder),
        "line": found.line,
        "hours": [partition_key(hour) for hour in found.hours],
        "lo": found.lo,
        "hi": found.hi,
        "segments": len(found.segments),
        "bytes": sum(segment.bytes for segment in found.segments),
        "unsettled": unsettled,
    }
    if as_json:
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    typer.echo(
        f"{found.line}: {len(found.hours)} hours, offsets {found.lo} to {found.hi - 1} in"
        f" {len(found.segments)} segments, {values['bytes']:,} bytes in '{folder}'"
    )
    if unsettled:
        typer.echo(f"  not settled yet, more may come to them: {', '.join(unsettled)}")


def import_hours(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="What 'iiot log export' has written.")],
    *,
    as_json: _JSON = False,
) -> None:
    """Take exported hours into this home, to be computed here; no buffer may run meanwhile."""
    home = Settings.from_environ(context.obj).home
    export, part = read_export(folder)
    records = sum(segment.rows for segment in export.segments)
    with _progress("verify", shown=not as_json, total=records) as tell:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            tell(done, records)

        damage = verify_export(folder, export, advance).damage
    if damage is not None:
        raise StorageError(
            f"'{folder}' is damaged at offsets [{damage.lo}, {damage.hi}): {damage.detail};"
            " nothing was imported, copy it again"
        )
    segments = [
        Segment(stream=export.line, sealed_at=0, **segment._asdict()) for segment in export.segments
    ]
    collide(SealedLog(home), export)
    ledger = Ledger.of(home)
    try:
        adopted = adopt(ledger, export, part)
    finally:
        ledger.close()
    with _progress("segments", shown=not as_json) as tell:
        taken = take_in(home, segments, folder, export.chain_before, on_segments=tell)
    keys = [partition_key(hour) for hour in export.hours]
    if as_json:
        values = {
            "line": export.line,
            "hours": keys,
            "lo": export.lo,
            "hi": export.hi,
            "records": records,
            "was_there": not (taken or adopted),
        }
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    typer.echo(
        f"{export.line}: {records:,} records, offsets {export.lo} to {export.hi - 1},"
        f" {len(keys)} hours from {keys[0]} to {keys[-1]}"
        f"{'' if taken else ' were here already'}. The next settling computes them, or:"
    )
    typer.echo(f"  {rerun_command(export)}")
    typer.echo(f"  iiot log verify --export '{folder}' --computed")


def rebuild(context: typer.Context, *, as_json: _JSON = False) -> None:
    """Make the manifest anew from the segments' files; the old one is kept aside."""
    settings = Settings.from_environ(context.obj)
    home = settings.home
    names: tuple[str, ...] = ()
    if settings.plant_path.exists():
        names = load_plant(settings.plant_path, context.obj).line_names
    if not home.capture.exists():
        raise StorageError(f"'{home.capture}' is not there: nothing was captured below this home")
    lock = WriterLock(home.capture / "manifest.lock")
    try:
        with _progress("files", shown=not as_json) as tell:
            found = repair.rebuild(home, names, tell)
    finally:
        lock.release()
    if as_json:
        typer.echo(json.dumps(vars(found), indent=2, ensure_ascii=False))
    else:
        Console(highlight=False).print(escape(str(found)), soft_wrap=True)


@contextmanager
def _progress(what: str, *, shown: bool, total: int | None = None) -> Iterator[Tell]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=not shown
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of: bar.update(task, completed=done, total=of)
