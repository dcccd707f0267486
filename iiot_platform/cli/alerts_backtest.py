"""`iiot alerts backtest`: the rules over history, under the plant file or a candidate."""

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from iiot_platform.alerts.backtest import Fit, LineBacktest, Stop
from iiot_platform.alerts.backtest import backtest as replayed
from iiot_platform.alerts.catalog import RULES
from iiot_platform.alerts.message import moment
from iiot_platform.cli.moments import MomentError, moment_ms
from iiot_platform.cli.report import period_s
from iiot_platform.client import Client
from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.config.shifts import ShiftCalendar
from iiot_platform.core.clock import MS_PER_HOUR, MS_PER_S, from_ms, now_ms
from iiot_platform.core.errors import AnalysisError, StorageError
from simulator.labels import WHOLE_MACHINE, read_labels

_SHOWN: Final = 20
_MS_PER_MINUTE: Final = 60 * MS_PER_S


def backtest(
    context: typer.Context,
    *,
    start: Annotated[str, typer.Option("--from", help="First time.")],
    end: Annotated[str | None, typer.Option("--to", help="Last time; default now.")] = None,
    line: Annotated[str | None, typer.Option(help="One line alone.")] = None,
    candidate: Annotated[
        Path | None, typer.Option("--plant", help="A plant file whose alerts are tried.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Labelled stops, one JSON object a line.")
    ] = None,
    lead: Annotated[
        str, typer.Option(help="An alert so long before a stop counts as right: 0s, 10min.")
    ] = "0s",
    tolerance: Annotated[
        str, typer.Option(help="Likewise one that fires so long behind it.")
    ] = "60s",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay the rules over the tables as they stand, and show which alerts there would have been.

    Nothing is written and nobody is told.
    """
    settings = Settings.from_environ(context.obj)
    plant = load_plant(candidate or settings.plant_path, context.obj)
    now = now_ms()
    start_ms = moment_ms(start, timezone=plant.timezone, now_ms=now)
    end_ms = now if end is None else moment_ms(end, timezone=plant.timezone, now_ms=now)
    if end_ms <= start_ms:
        raise MomentError(end or "now", f"is not behind '{start}'")
    stops = None if labels is None else _stops(labels)
    margins = _ms(lead), _ms(tolerance)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    shown = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), disable=as_json)
    with closing(Client(settings.home)) as client, shown:
        known = client.lines()
        lines = [plant.line(line).name] if line else [n for n in plant.line_names if n in known]
        if not lines:
            raise AnalysisError("nothing of the plant's lines has been computed yet")
        found = [_replay(client, plant, name, start_ms, end_ms, shown) for name in lines]
    fits = (
        None
        if stops is None
        else {
            one.line: one.fit(stops, lead_ms=margins[0], tolerance_ms=margins[1]) for one in found
        }
    )
    if as_json:
        values = [_values(one, plant, None if fits is None else fits[one.line]) for one in found]
        not_replayed = [name for name, rule in RULES.items() if not rule.replayable]
        typer.echo(json.dumps({"lines": values, "not_replayed": not_replayed}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for one in found:
        _print(console, one, plant, None if fits is None else fits[one.line])
    console.print("not replayed: " + ", ".join(n for n, r in RULES.items() if not r.replayable))


def _ms(period: str) -> int:
    text = period.strip()
    return 0 if text in {"0", "0s"} else round(period_s(text) * MS_PER_S)


def _replay(
    client: Client, plant: Plant, line: str, start_ms: int, end_ms: int, shown: Progress
) -> LineBacktest:
    task = shown.add_task(f"{line}: hours", total=-(-(end_ms - start_ms) // MS_PER_HOUR))
    return replayed(client, plant, line, start_ms, end_ms, on_hour=lambda: shown.advance(task))


def _stops(path: Path) -> list[Stop]:
    try:
        labels = read_labels(path)
    except (OSError, ValueError) as error:
        raise StorageError(f"labels '{path}' can not be read: {error}") from error
    return [
        Stop(
            label.line,
            f"{label.machine}/*" if label.series == WHOLE_MACHINE else label.key.partition("/")[2],
            label.fault,
            label.start_ms,
            max(label.end_ms, label.start_ms + 1),
        )
        for label in labels
    ]


def _values(found: LineBacktest, plant: Plant, fit: Fit | None) -> dict[str, Any]:
    calendar = ShiftCalendar(plant.shifts, plant.timezone)
    return {
        "line": found.line,
        "from": moment(found.start_ms),
        "to": moment(found.end_ms),
        "alerts": len(found.episodes),
        "by_rule": found.by_rule(),
        "flaps": found.flaps(),
        "shifts": [
            {"day": str(one.shift.day), "shift": one.shift.name}
            | {name: value for name, value in one._asdict().items() if name != "shift"}
            for one in found.shifts(calendar)
        ],
        "episodes": [
            {
                "rule": episode.key.rule,
                "series": episode.key.series,
                "since": moment(episode.since_ms),
                "fired_at": moment(episode.fired_ms),
                "resolved_at": None if episode.end_ms is None else moment(episode.end_ms),
                "peak": round(episode.peak, 6),
                "told": episode.told,
            }
            for episode in found.episodes
        ],
        "fit": None
        if fit is None
        else {**fit._asdict(), "precision": fit.precision, "recall": fit.recall},
    }


def _print(console: Console, found: LineBacktest, plant: Plant, fit: Fit | None) -> None:
    counts = ", ".join(f"{rule} {count}" for rule, count in found.by_rule().items() if count)
    console.print(
        f"[bold]{escape(found.line)}[/bold] {moment(found.start_ms)} to {moment(found.end_ms)}:"
        f" {len(found.episodes)} alerts{f' ({counts})' if counts else ''}, {found.flaps()} flaps",
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("rule", "series", "fired (UTC)", "lasted", "peak"):
        table.add_column(heading, overflow="fold")
    for episode in found.episodes[:_SHOWN]:
        lasted = "still fires"
        if episode.end_ms is not None:
            lasted = f"{(episode.end_ms - episode.fired_ms) / _MS_PER_MINUTE:.1f} min"
        table.add_row(
            episode.key.rule if episode.told else f"{episode.key.rule} (held back)",
            escape(episode.key.series),
            f"{from_ms(episode.fired_ms):%m-%d %H:%M:%S}",
            lasted,
            f"{episode.peak:.4g}",
        )
    if found.episodes:
        console.print(table)
    if len(found.episodes) > _SHOWN:
        console.print(f"and {len(found.episodes) - _SHOWN} more; --json gives all")
    shifts = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("day", "shift", "alerts", "told", "minutes"):
        shifts.add_column(heading, justify="right" if heading in {"alerts", "told"} else "left")
    for one in found.shifts(ShiftCalendar(plant.shifts, plant.timezone))[-_SHOWN:]:
        numbers = (str(n) for n in (one.fired, one.told, one.minutes))
        shifts.add_row(str(one.shift.day), escape(one.shift.name), *numbers)
    console.print(shifts)
    if fit is not None:
        console.print(
            f"labelled stops: {fit.found} of {fit.stops} found (recall {_share(fit.recall)});"
            f" {fit.right} of {fit.alerts} alerts of series right"
            f" (precision {_share(fit.precision)})",
            soft_wrap=True,
        )
        each = ", ".join(f"{what} {n} of {of}" for what, (n, of) in fit.by_type.items())
        if each:
            console.print(f"found by type: {escape(each)}", soft_wrap=True)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
