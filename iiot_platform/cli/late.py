"""`iiot late`: the rows that came after their hour had ended and the grace was over."""

import json
from collections.abc import Hashable
from typing import Annotated, Any, Final

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iiot_platform.cli.moments import moment_ms
from iiot_platform.client import Client
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import from_ms, now_ms
from iiot_platform.core.names import SeriesKey
from iiot_platform.core.schema import LATE_ROWS

_SHOWN: Final = 50
_COLUMNS: Final = ("line_name", "ts", "received_ts", "lateness_s", "series", "topic", "offset")


def late(
    context: typer.Context,
    *,
    line: Annotated[str | None, typer.Option(help="One line alone.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First event time: 2026-11-22T08:00, -2h …")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Event time behind the last.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the newest rows.")] = _SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one list.")] = False,
) -> None:
    """List rows that came late: when, how late, and of which series."""
    installed = Settings.from_environ(context.obj)
    zone = load_plant(installed.plant_path, context.obj).timezone
    now = now_ms()
    since, until = (
        None if text is None else from_ms(moment_ms(text, timezone=zone, now_ms=now))
        for text in (start, end)
    )
    client = Client(installed.home)
    try:
        parts = [
            client.table(name, LATE_ROWS.name, start=since, end=until, last=last).assign(
                line_name=name
            )
            for name in (client.lines() if line is None else [line])
        ]
    finally:
        client.close()
    filled = [part for part in parts if len(part)]
    found = pd.concat(filled, ignore_index=True).sort_values("ts").tail(last) if filled else None
    rows = [] if found is None else found[list(_COLUMNS)].to_dict(orient="records")
    if as_json:
        typer.echo(json.dumps([_plain(row) for row in rows], indent=2, ensure_ascii=False))
        return
    if not rows:
        typer.echo("no row came late")
        return
    Console(highlight=False).print(_shown([_plain(row) for row in rows], zone))


def _plain(row: dict[Hashable, Any]) -> dict[str, Any]:
    """A row as JSON has it."""
    return {
        str(name): value.isoformat() if isinstance(value, pd.Timestamp) else value
        for name, value in row.items()
    }


def _shown(rows: list[dict[str, Any]], zone: str) -> Table:
    table = Table(title=f"late rows, times in {zone}", title_justify="left")
    for name in ("line", "event time", "received", "late by"):
        table.add_column(name, justify="right" if name == "late by" else "left")
    table.add_column("series", overflow="fold")
    for row in rows:
        key = SeriesKey.parse(str(row["series"]))
        name = "/".join(part for part in (key.machine, key.name, key.operation) if part)
        ts, received = (
            f"{pd.Timestamp(str(row[c])).tz_convert(zone):%Y-%m-%d %H:%M:%S}"
            for c in ("ts", "received_ts")
        )
        lateness = pd.Timedelta(seconds=float(str(row["lateness_s"]))).round("s")
        cells = (str(row["line_name"]), ts, received, str(lateness), name)
        table.add_row(*(escape(cell) for cell in cells))
    return table
