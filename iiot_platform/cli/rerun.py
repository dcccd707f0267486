"""`iiot rerun`: compute hours again from the log."""

import json
import uuid
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from iiot_platform.cli.announcement import announced, in_words, left_in_words
from iiot_platform.cli.app import EXIT_FAILURE
from iiot_platform.cli.moments import hours_of
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import now_ms, partition_key
from iiot_platform.core.errors import ConfigError
from iiot_platform.engine.backfill import Recomputed, backfill
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.report import SettleReport


class Under(Enum):
    """Which settings an hour is computed under."""

    KEEP = "keep"
    CURRENT = "current"


class NoLineError(ConfigError):
    """Neither a line nor all lines were asked for."""

    def __init__(self) -> None:
        super().__init__("which line? give --line NAME (it may be repeated) or --all")


class NoSpanError(ConfigError):
    """No time was given."""

    def __init__(self) -> None:
        super().__init__("from when? give --from, for example --from -2h, or --outdated")


@dataclass
class Tally:
    """What became of one line's hours."""

    line: str
    hours: int = 0
    equal: int = 0
    rows: int = 0
    ripples: int = 0
    left: int = 0

    def __post_init__(self) -> None:
        self.differences: list[dict[str, str]] = []
        self.reasons: Counter[str] = Counter()
        self.reports: list[SettleReport] = []

    def add(self, one: Recomputed) -> None:
        """Takes one hour."""
        found = one.settled
        self.hours += 1
        self.ripples += one.follows
        self.reports.append(found)
        self.equal += found.equal
        self.rows += sum(found.report.rows.values())
        for difference in found.differences:
            self.reasons[difference.reason] += 1
            self.differences.append(
                {"hour": partition_key(found.report.hour), **difference._asdict()}
            )

    def as_json(self) -> dict[str, Any]:
        """As values that JSON knows."""
        return {
            "line": self.line,
            "hours": self.hours,
            "equal": self.equal,
            "rows": self.rows,
            "following_hours": self.ripples,
            "hours_to_follow": self.left,
            "reasons": dict(self.reasons),
            "differences": self.differences,
            "computed_from_readings": {
                partition_key(found.report.hour): found.report.kept_below
                for found in self.reports
                if found.report.kept_below
            },
        }


def rerun(
    context: typer.Context,
    *,
    line: Annotated[list[str] | None, typer.Option(help="A line; may be repeated.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every line.")] = False,
    start: Annotated[
        str | None, typer.Option("--from", help="First time: 2026-11-22T08:00, 08:00, -2h …")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Time behind the last; default now.")] = (
        None
    ),
    settings: Annotated[
        Under, typer.Option(help="Settings: those that each hour has, or the current ones.")
    ] = Under.KEEP,
    outdated: Annotated[
        bool,
        typer.Option(
            "--outdated", help="Only hours under older settings; computes them under the current."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute hours again from the log, beside live batches, and say what has changed.

    Hours that went on from a state that is another now are computed again too.
    """
    installed = Settings.from_environ(context.obj)
    plant = load_plant(installed.plant_path, context.obj)
    if not (line or every):
        raise NoLineError
    if start is None and not outdated:
        raise NoSpanError
    names = plant.line_names if every else [plant.line(name).name for name in line or ()]
    hours = (
        None if start is None else hours_of(start, end, timezone=plant.timezone, now_ms=now_ms())
    )
    engine = Engine(installed.home, plant, sinks=installed.sinks)
    run_id = f"rerun-{uuid.uuid4()}"
    under: Literal["keep", "current"] = (
        "current" if outdated or settings is Under.CURRENT else "keep"
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    tallies = []
    try:
        with Progress(
            *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=as_json
        ) as shown:
            for name in names:
                chosen = _chosen(engine, name, hours, outdated=outdated)
                task = shown.add_task(escape(name), total=len(chosen))
                tally = Tally(name)
                tallies.append(tally)
                for found in backfill(engine, name, chosen, run_id=run_id, settings=under):
                    tally.add(found)
                    shown.update(task, advance=1, total=len(chosen) + tally.ripples)
                tally.left = len(engine.dirty_hours(name))
        reports = [found for tally in tallies for found in tally.reports]
        told = announced(installed.home, engine, run_id, reports)
    finally:
        engine.close()
    _tell(tallies, run_id, told, as_json=as_json)
    if any(tally.reasons["defect"] for tally in tallies):
        raise typer.Exit(EXIT_FAILURE)


def _chosen(engine: Engine, line: str, hours: range | None, *, outdated: bool) -> list[int]:
    known = engine.outdated_hours(line) if outdated else engine.ledger.hours(line)
    return [hour for hour in known if hours is None or hour in hours]


def _tell(tallies: list[Tally], run_id: str, told: int | None, *, as_json: bool) -> None:
    if as_json:
        body = {
            "run_id": run_id,
            "told_to_dagster": told,
            "lines": [tally.as_json() for tally in tallies],
        }
        typer.echo(json.dumps(body, indent=2, ensure_ascii=False))
        return
    for tally in tallies:
        following = f", {tally.ripples} of them following ones" if tally.ripples else ""
        typer.echo(
            f"{tally.line}: {tally.hours} hours computed again{following},"
            f" {tally.equal} as they were, {tally.rows:,} rows"
        )
        for found in tally.reports:
            if found.report.kept_below:
                typer.echo(
                    f"  {partition_key(found.report.hour)}: computed from readings: raw before"
                    f" offset {found.report.kept_below} is gone"
                )
        for reason, count in sorted(tally.reasons.items()):
            typer.echo(f"  {reason}: {count} tables of a series differ")
        if tally.left:
            typer.echo(f"  {left_in_words(tally.left)}")
    typer.echo(in_words(run_id, told))
