"""`iiot rerun`: compute hours again from the log."""

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from iiot_platform.cli.app import EXIT_FAILURE
from iiot_platform.cli.moments import hours_of
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import now_ms, partition_key
from iiot_platform.core.errors import ConfigError
from iiot_platform.core.paths import Home
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.errors import CommitLostError
from iiot_platform.engine.report import SettleReport

_TRIES: Final = 5


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

    def __post_init__(self) -> None:
        self.differences: list[dict[str, str]] = []
        self.reasons: Counter[str] = Counter()
        self.reports: list[SettleReport] = []

    def add(self, found: SettleReport) -> None:
        """Takes one hour."""
        self.hours += 1
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
            "reasons": dict(self.reasons),
            "differences": self.differences,
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
    engine = Engine(installed.home, plant, sinks=installed.influx is not None)
    run_id = f"rerun-{uuid.uuid4()}"
    under = Under.CURRENT if outdated else settings
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
                for _ in _computed(engine, tally, chosen, run_id, under):
                    shown.advance(task)
        told = _announced(installed.home, engine, run_id, tallies)
    finally:
        engine.close()
    _tell(tallies, run_id, told, as_json=as_json)
    if any(tally.reasons["defect"] for tally in tallies):
        raise typer.Exit(EXIT_FAILURE)


def _chosen(engine: Engine, line: str, hours: range | None, *, outdated: bool) -> list[int]:
    known = engine.outdated_hours(line) if outdated else engine.ledger.hours(line)
    return [hour for hour in known if hours is None or hour in hours]


def _computed(
    engine: Engine, tally: Tally, chosen: list[int], run_id: str, under: Under
) -> Iterator[int]:
    """Computes hours, oldest first, then those that follow from a state that has changed."""
    line, before = tally.line, set(engine.dirty_hours(tally.line))
    for hour in chosen:
        tally.add(_hour(engine, line, hour, run_id, under))
        yield hour
    while following := [hour for hour in engine.dirty_hours(line) if hour not in before]:
        # one ripple may cause the next, each in a later hour
        tally.add(_hour(engine, line, following[0], run_id, Under.KEEP))
        tally.ripples += 1


def _hour(engine: Engine, line: str, hour: int, run_id: str, under: Under) -> SettleReport:
    """Computes one hour; begins anew where a live batch has changed it meanwhile."""

    def compute() -> SettleReport:
        if under is Under.CURRENT:
            return engine.rerun(line, hour, run_id=run_id, settings="current", kind="backfill")
        return engine.rerun(line, hour, run_id=run_id)

    for _ in range(_TRIES - 1):
        try:
            return compute()
        except CommitLostError:
            continue
    return compute()


def _announced(home: Home, engine: Engine, run_id: str, tallies: list[Tally]) -> int | None:
    """How many hours Dagster was told of; None where there is no Dagster."""
    if not (home.dagster / "dagster.yaml").exists():
        return None
    # importing Dagster takes longer than computing an hour
    from iiot_platform.orchestration.announce import announce  # noqa: PLC0415

    return announce(home, engine, run_id, [found for tally in tallies for found in tally.reports])


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
        for reason, count in sorted(tally.reasons.items()):
            typer.echo(f"  {reason}: {count} tables of a series differ")
    dagster = "there is no Dagster here" if told is None else f"Dagster shows {told} hours"
    typer.echo(f"run {run_id}; {dagster}")
