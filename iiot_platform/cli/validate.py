"""`iiot validate`: check a plant file and show what follows from it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iiot_platform.cli.app import EXIT_CONFIG
from iiot_platform.config.errors import PlantFileError
from iiot_platform.config.line_settings import LineSettings
from iiot_platform.config.plant import Plant
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core import schema
from iiot_platform.core.pages import asset_prefix
from iiot_platform.core.parameters import DetectorParameters

_DETECTED = tuple(kind for kind in schema.KINDS if kind != schema.STATE)


def validate(
    context: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PLANT", help="Plant file; default IIOT_PLANT or ./plant.yaml."),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a plant file and show its lines, topics, settings versions and detectors."""
    environ = context.obj
    path = path or Settings.from_environ(environ).plant_path
    try:
        plant = load_plant(path, environ)
    except PlantFileError as error:
        if not as_json:
            raise
        typer.echo(json.dumps(_problems(error), indent=2, ensure_ascii=False))
        raise typer.Exit(EXIT_CONFIG) from error
    if as_json:
        typer.echo(json.dumps(_summary(plant, path), indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(_table(plant))
    for name in plant.line_names:
        if (prefix := asset_prefix(name)) != name:
            console.print(
                f"[yellow]note[/yellow]: line '{escape(name)}' is '{prefix}' in Dagster, whose"
                " pages can not show its own name: dashboards do not find its assets",
                soft_wrap=True,
            )
    console.print(f"[green]valid[/green]: {escape(str(path))}", soft_wrap=True)


def _summary(plant: Plant, path: Path) -> dict[str, Any]:
    return {
        "file": str(path),
        "plant": plant.name,
        "valid": True,
        "lines": [
            {
                "name": line.name,
                "asset_prefix": asset_prefix(line.name),
                "source": plant.source_of(line.name).name,
                "topic_filter": settings.topic_filter,
                "topic_filters": list(settings.topic_filters),
                "settings_version": settings.version,
                "detectors": {
                    kind: _default_of(settings, kind).model_dump(mode="json") for kind in _DETECTED
                },
                "exceptions": [rule.model_dump(mode="json") for rule in settings.series],
            }
            for line in plant.lines
            for settings in [plant.line_settings(line.name)]
        ],
    }


def _problems(error: PlantFileError) -> dict[str, Any]:
    return {
        "file": str(error.path),
        "valid": False,
        "problems": [
            {"line": problem.line or None, "field": problem.field_path, "message": problem.message}
            for problem in error.problems
        ],
    }


def _topics(settings: LineSettings) -> str:
    nodes = () if settings.sparkplug is None else settings.sparkplug.nodes
    return "\n".join((settings.topic_filter, *(f"Sparkplug {each.text}" for each in nodes)))


def _table(plant: Plant) -> Table:
    table = Table(title=escape(plant.name), title_justify="left")
    for heading in ("line", "source", "topics", "settings", "detectors", "exceptions"):
        table.add_column(heading, overflow="fold")
    for line in plant.lines:
        settings = plant.line_settings(line.name)
        table.add_row(
            escape(line.name),
            escape(plant.source_of(line.name).name),
            escape(_topics(settings)),
            settings.version,
            _detectors(settings),
            str(len(settings.series)),
        )
    return table


def _detectors(settings: LineSettings) -> str:
    """One row for each setting that kinds share, for example `zscore 3.5 / 200: signal, valve`."""
    kinds: dict[str, list[str]] = {}
    for kind in _DETECTED:
        detector = _default_of(settings, kind)
        parity = " (parity)" if detector.parity else ""
        text = f"{detector.detector} {detector.threshold:g} / {detector.window}{parity}"
        kinds.setdefault(text, []).append(kind)
    if len(kinds) == 1:
        return next(iter(kinds))
    return "\n".join(f"{text}: {', '.join(names)}" for text, names in kinds.items())


def _default_of(settings: LineSettings, kind: str) -> DetectorParameters:
    default: DetectorParameters = getattr(settings.defaults, kind)
    return default
