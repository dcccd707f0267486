"""`iiot replay`: what if these hours had been computed under another plant file."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from iiot_platform.cli.announcement import announced, in_words, left_in_words
from iiot_platform.cli.moments import hours_of
from iiot_platform.cli.promotion import difference, put_in_place
from iiot_platform.cli.replay_page import Page, page
from iiot_platform.config.line_settings import LineSettings
from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.config.shifts import ShiftCalendar
from iiot_platform.core.clock import from_ms, hour_start_ms, now_ms
from iiot_platform.core.errors import AnalysisError, ConfigError, StorageError
from iiot_platform.engine import replay as engine_replay
from iiot_platform.engine.backfill import Recomputed, backfill
from iiot_platform.engine.comparison import Comparison, Example, QuantityComparison
from iiot_platform.engine.engine import Engine
from iiot_platform.engine.envelope import Envelope
from iiot_platform.engine.traces import TestedQuantity

_SHOWN: Final = 30
_PICTURES: Final = 40


class Question(NamedTuple):
    """What is asked: a line, its hours and the settings to try."""

    line: str
    hours: list[int]
    start_ms: int
    end_ms: int
    settings: LineSettings
    calendar: ShiftCalendar


class Answer(NamedTuple):
    """What would change, with pictures where they were asked for."""

    comparison: Comparison
    envelopes: dict[TestedQuantity, Envelope]


def replay(
    context: typer.Context,
    *,
    candidate: Annotated[Path, typer.Option("--plant", help="The plant file to try.")],
    line: Annotated[str, typer.Option(help="The line.")],
    start: Annotated[str, typer.Option("--from", help="First time; whole hours are taken.")],
    end: Annotated[
        str | None, typer.Option("--to", help="Time behind the last; default now.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures here.")] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Make it the plant file and compute the hours anew.")
    ] = False,
) -> None:
    """Compute hours under a candidate beside the result that stands, and show what would change.

    Nothing that stands is touched, unless --promote is given.
    """
    settings = Settings.from_environ(context.obj)
    tried = load_plant(candidate, context.obj)
    engine = Engine(settings.home, tried, sinks=settings.sinks)
    console = Console(highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    shown = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), disable=as_json)
    try:
        with shown:
            asked = _question(engine, tried, line, start, end)
            answer = _answer(engine, asked, shown, pictures=html is not None)
        if html is not None:
            _write(html, page(_page(asked, answer)))
        if not as_json:
            _print(console, asked, answer.comparison)
            if html is not None:
                console.print(f"pictures: {escape(str(html))}", soft_wrap=True)
        promoted = (
            _promote(settings, context.obj, engine, tried, candidate, asked, shown)
            if promote
            else None
        )
    finally:
        engine.close()
    if as_json:
        typer.echo(json.dumps(_values(asked, answer.comparison, promoted), ensure_ascii=False))
    elif promoted is not None:
        _print_promotion(console, promoted)


def _question(engine: Engine, tried: Plant, line: str, start: str, end: str | None) -> Question:
    settings = tried.line_settings(line)
    span = hours_of(start, end, timezone=tried.timezone, now_ms=now_ms())
    hours = [hour for hour in engine.ledger.hours(line) if hour in span]
    if not hours:
        computed = engine.ledger.hours(line)
        known = (
            f"it has hours from {from_ms(hour_start_ms(computed[0])):%Y-%m-%d %H:%M}Z to"
            f" {from_ms(hour_start_ms(computed[-1] + 1)):%Y-%m-%d %H:%M}Z"
            if computed
            else "nothing of it was computed yet"
        )
        raise AnalysisError(f"line '{line}' has no computed hour from '{start}' on; {known}")
    return Question(
        line,
        hours,
        hour_start_ms(hours[0]),
        hour_start_ms(hours[-1] + 1),
        settings,
        ShiftCalendar(tried.shifts, tried.timezone),
    )


def _answer(engine: Engine, asked: Question, shown: Progress, *, pictures: bool) -> Answer:
    comparison = Comparison(asked.settings, asked.calendar)
    envelopes: dict[TestedQuantity, Envelope] = {}
    task = shown.add_task("hours compared", total=len(asked.hours))
    for hour in engine_replay.replay(
        engine.log, engine.ledger, engine.store, asked.settings, asked.hours
    ):
        comparison.add(hour)
        if pictures:
            for quantity in {*hour.standing, *hour.candidate}:
                envelopes.setdefault(quantity, Envelope(asked.start_ms, asked.end_ms)).add(
                    hour.standing.get(quantity), hour.candidate.get(quantity)
                )
        shown.advance(task)
    return Answer(comparison, envelopes)


def _check_same(copy: Path, tried: Plant, environ: Mapping[str, str]) -> None:
    """Refuses a candidate that says something else where the plant file lies."""
    if load_plant(copy, environ) != tried:
        raise ConfigError(
            "the candidate was changed meanwhile, or its relative paths lead elsewhere from the"
            " folder of the plant file; mend it and try again"
        )


def _promote(
    settings: Settings,
    environ: Mapping[str, str],
    engine: Engine,
    tried: Plant,
    candidate: Path,
    asked: Question,
    shown: Progress,
) -> dict[str, Any]:
    """Puts the candidate in place and computes the hours under it."""
    changes = difference(settings.plant_path, candidate)
    kept = put_in_place(
        settings.plant_path, candidate, now_ms(), lambda copy: _check_same(copy, tried, environ)
    )
    run_id = f"promote-{uuid.uuid4()}"
    computed: list[Recomputed] = []
    with shown:
        task = shown.add_task("hours computed", total=len(asked.hours))
        for found in backfill(engine, asked.line, asked.hours, run_id=run_id):
            computed.append(found)
            following = sum(one.follows for one in computed)
            shown.update(task, advance=1, total=len(asked.hours) + following)
    told = announced(settings.home, engine, run_id, [found.settled for found in computed])
    reports = [found.settled.report for found in computed]
    return {
        "plant": str(settings.plant_path),
        "kept": None if kept is None else str(kept),
        "diff": changes,
        "run_id": run_id,
        "told_to_dagster": told,
        "hours": sum(not found.follows for found in computed),
        "following_hours": sum(found.follows for found in computed),
        "hours_to_follow": len(engine.dirty_hours(asked.line)),
        "rows": sum(sum(report.rows.values()) for report in reports),
        "anomalies": sum(report.anomalies for report in reports),
    }


def _print(console: Console, asked: Question, comparison: Comparison) -> None:
    quantities = comparison.quantities
    changed = [found for found in quantities if found.added or found.removed]
    title = (
        f"anomalies: {asked.line}, {_time(asked.start_ms)} to {_time(asked.end_ms)}:"
        f" {len(asked.hours)} hours under settings {asked.settings.version}"
    )
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("series", overflow="fold", min_width=20)
    headings = ("rows", "now", "would be", "added", "removed", "learnt from")
    for heading in headings:
        table.add_column(heading, justify="right")
    for found in (changed or quantities)[:_SHOWN]:
        table.add_row(
            escape(found.quantity.label),
            *(
                f"{count:,}"
                for count in (
                    found.rows,
                    found.standing,
                    found.candidate,
                    found.added,
                    found.removed,
                    found.learning,
                )
            ),
        )
    console.print(table)
    rest = len(quantities) - min(len(changed or quantities), _SHOWN)
    if rest:
        console.print(f"and {rest} more, {len(changed)} of {len(quantities)} change")
    for found in changed[:_SHOWN]:
        _print_examples(console, found)
    _print_shifts(console, comparison)


def _print_examples(console: Console, found: QuantityComparison) -> None:
    for word, examples in (("added", found.examples_added), ("removed", found.examples_removed)):
        for example in examples:
            console.print(
                f"  {word} {escape(found.quantity.label)} {_time(example.ts, seconds=True)}"
                f" value {example.value:.6g}: {_verdicts(example)}",
                soft_wrap=True,
            )


def _verdicts(example: Example) -> str:
    """Both verdicts, for example `z 4.10 against 6, would be 4.10 against 4`."""
    was, would = (
        "no row" if verdict is None else f"z {verdict.z_score:.2f} against {verdict.threshold:g}"
        for verdict in (example.standing, example.candidate)
    )
    return f"{was}, would be {would}"


def _print_shifts(console: Console, comparison: Comparison) -> None:
    table = Table(title="alarm minutes per shift", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("day", "shift"):
        table.add_column(heading)
    for heading in ("minutes", "would be", "alerts", "would be"):
        table.add_column(heading, justify="right")
    for load in comparison.shifts[-_SHOWN:]:
        table.add_row(str(load.shift.day), escape(load.shift.name), *(f"{n:,}" for n in load[1:]))
    console.print(table)


def _print_promotion(console: Console, promoted: dict[str, Any]) -> None:
    for text in promoted["diff"]:
        style = {"+": "green", "-": "red", "@": "cyan"}.get(text[:1], "")
        console.print(escape(text), style=style, soft_wrap=True)
    console.print(
        f"{escape(promoted['plant'])} is the candidate now"
        + (f"; the old one is {escape(promoted['kept'])}" if promoted["kept"] else ""),
        soft_wrap=True,
    )
    following = promoted["following_hours"]
    console.print(
        f"{promoted['hours']} hours computed"
        + (f", and {following} that follow from them" if following else "")
        + f": {promoted['rows']:,} rows, {promoted['anomalies']:,} anomalies",
        soft_wrap=True,
    )
    if promoted["hours_to_follow"]:
        console.print(left_in_words(promoted["hours_to_follow"]), soft_wrap=True)
    console.print(in_words(promoted["run_id"], promoted["told_to_dagster"]), soft_wrap=True)


def _values(
    asked: Question, comparison: Comparison, promoted: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "line": asked.line,
        "from": _time(asked.start_ms),
        "to": _time(asked.end_ms),
        "hours": len(asked.hours),
        "settings_version": asked.settings.version,
        "series": [_series(found) for found in comparison.quantities],
        "shifts": [
            {"day": str(load.shift.day), "shift": load.shift.name}
            | {name: value for name, value in load._asdict().items() if name != "shift"}
            for load in comparison.shifts
        ],
        "promoted": promoted,
    }


def _series(found: QuantityComparison) -> dict[str, Any]:
    counts = {
        name: value
        for name, value in asdict(found).items()
        if name not in ("quantity", "examples_added", "examples_removed")
    }
    return {
        "table": found.quantity.table,
        "machine": found.quantity.series.machine,
        "name": found.quantity.series.name,
        "operation": found.quantity.series.operation,
        "column": found.quantity.column,
        **counts,
        "unchanged": found.unchanged,
        "examples_added": [_example(example) for example in found.examples_added],
        "examples_removed": [_example(example) for example in found.examples_removed],
    }


def _example(example: Example) -> dict[str, Any]:
    return {
        "ts": _time(example.ts, seconds=True),
        "value": example.value,
        **{
            side: None if verdict is None else verdict._asdict()
            for side, verdict in (
                ("standing", example.standing),
                ("candidate", example.candidate),
            )
        },
    }


def _page(asked: Question, answer: Answer) -> Page:
    quantities = answer.comparison.quantities
    return Page(
        line=asked.line,
        start_ms=asked.start_ms,
        end_ms=asked.end_ms,
        hours=len(asked.hours),
        settings_version=asked.settings.version,
        quantities=quantities,
        envelopes={
            found.quantity: answer.envelopes[found.quantity] for found in quantities[:_PICTURES]
        },
        shifts=answer.comparison.shifts,
    )


def _time(ts_ms: int, *, seconds: bool = False) -> str:
    form = "%Y-%m-%dT%H:%M:%S.%f" if seconds else "%Y-%m-%dT%H:%M"
    text = from_ms(ts_ms).strftime(form)
    return f"{text[:-3] if seconds else text}Z"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"'{path}' can not be written: {error.strerror}") from error
