"""`iiot batch`: compute what was captured, without Dagster."""

import json
import uuid
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.engine.consumed import publish
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.report import BatchReport


def batch(
    context: typer.Context,
    lines: Annotated[
        list[str] | None, typer.Argument(metavar="[LINE]...", help="Lines; default all.")
    ] = None,
    *,
    rerun: Annotated[
        bool, typer.Option(help="Also compute the hours again that late data has changed.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Take everything that is sealed in the log into the tables, batch by batch."""
    settings = Settings.from_environ(context.obj)
    plant = load_plant(settings.plant_path, context.obj)
    names = [plant.line(name).name for name in lines or plant.line_names]
    engine = Engine(settings.home, plant, sinks=settings.sinks)
    run_id = f"batch-{uuid.uuid4()}"
    done = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=as_json
    ) as shown:
        for name in names:
            counts = _line(engine, name, run_id, shown)
            hours = engine.dirty_hours(name) if rerun else []
            for hour in hours:
                engine.rerun(name, hour, run_id=run_id)
            done.append({**counts, "hours_computed_again": len(hours)})
    publish(settings.home, engine, names)
    engine.close()
    if as_json:
        typer.echo(json.dumps({"run_id": run_id, "lines": done}, indent=2, ensure_ascii=False))
        return
    for counts in done:
        typer.echo(
            f"{counts['line']}: {counts['records']:,} records in {counts['batches']} batches,"
            f" {counts['hours_computed_again']} hours computed again"
        )


def _line(engine: Engine, line: str, run_id: str, shown: Progress) -> "dict[str, str | int]":
    first = engine.ledger.watermark(line)
    task = shown.add_task(line, total=engine.log.head(line) - first)
    batches, watermark = 0, first
    while (report := engine.run_batch(line, run_id=f"{run_id}-{batches}")) is not None:
        batches, watermark = batches + 1, report.hi
        shown.update(task, completed=watermark - first, total=_total(report, first))
    return {
        "line": line,
        "batches": batches,
        "records": watermark - first,
        "watermark": watermark,
    }


def _total(report: BatchReport, first: int) -> int:
    return report.hi + report.lag_rows - first
