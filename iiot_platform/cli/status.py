"""`iiot status`: where the plant stands."""

import json
from collections.abc import Mapping
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iiot_platform.config.active_plant import active_path, examine, plant_in_force
from iiot_platform.config.plant import Plant
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import MS_PER_S, from_ms
from iiot_platform.engine.status import LineStatus, PlantStatus, StatusReader

_MINUTE_S = 60
_HOUR_S = 3_600


def status(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show per line what was captured and computed, and what lies between."""
    settings = Settings.from_environ(context.obj)
    plant, remark = _plant(settings, context.obj)
    current = {} if plant is None else {n: plant.line_settings(n).version for n in plant.line_names}
    reader = StatusReader(settings.home, current, current=current)
    found = reader.read()
    reader.close()
    if as_json:
        body = {**found.as_json(), "plant_file": remark or "in force"}
        typer.echo(json.dumps(body, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(_buffer(found), soft_wrap=True)
    for warning in found.buffer.warnings:
        console.print(f"buffer: [yellow]{escape(warning)}[/yellow]", soft_wrap=True)
    if remark:
        console.print(f"plant file: [red]{escape(remark)}[/red]", soft_wrap=True)
    if not found.lines:
        console.print(f"nothing captured in {escape(str(settings.home.root))} yet", soft_wrap=True)
        return
    console.print(_table(found))
    for line in found.lines:
        for remark in _remarks(line, found.at_ms):
            console.print(f"{escape(line.line)}: {escape(remark)}", soft_wrap=True)


def _plant(settings: Settings, environ: Mapping[str, str]) -> tuple[Plant | None, str]:
    """The plant whose settings count, and what is to be said of the plant file."""
    if not (settings.plant_path.exists() or active_path(settings.home).exists()):
        return None, ""
    plant, problem = examine(settings, environ)
    if problem is not None:
        return plant, f"broken, the last valid one stays in force: {problem}"
    if plant != plant_in_force(settings, environ):
        return plant, "edited since Dagster has loaded it; reload its code location"
    return plant, ""


def _buffer(found: PlantStatus) -> str:
    buffer = found.buffer
    if buffer.written_ms is None:
        return "buffer: [yellow]never ran here[/yellow]; start it with 'iiot capture'"
    if not buffer.running:
        since = from_ms(buffer.written_ms)
        return f"buffer: [red]not running[/red] since {since:%Y-%m-%d %H:%M:%S} UTC"
    sources = ", ".join(f"{name} {state}" for name, state in buffer.sources.items())
    trouble = f"; [red]{escape(buffer.storage_error)}[/red]" if buffer.storage_error else ""
    return f"buffer: [green]running[/green]; {escape(sources)}{trouble}"


def _table(found: PlantStatus) -> Table:
    table = Table(
        title=f"{from_ms(found.at_ms):%Y-%m-%d %H:%M:%S} UTC",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("line", overflow="fold")
    for heading in ("captured", "computed", "lag", "waiting", "last batch", "anomalies"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in found.lines:
        last = line.batches.last_ms
        table.add_row(
            escape(line.line),
            f"{line.captured:,}",
            f"{line.consumed:,}",
            f"{line.lag_rows:,}",
            _age(line.lag_s),
            "never" if last is None else f"{_age((found.at_ms - last) / MS_PER_S)} ago",
            f"{line.anomalies:,}",
        )
    return table


def _remarks(line: LineStatus, at_ms: int) -> list[str]:
    """What a line's row has no room for."""
    batches, rows = line.batches, sum(line.rows.values())
    remarks = [f"{line.rate_per_s:.1f} messages/s, {batches.count:,} batches, {rows:,} rows"]
    if batches.seconds_p50 is not None:
        remarks.append(
            f"a batch takes {batches.seconds_p50:.2f} s, p95 {batches.seconds_p95:.2f} s"
        )
    remarks += [
        f"{name}: {sink.pending:,} entries to write"
        for name, sink in line.sinks.items()
        if sink.pending
    ]
    if line.quarantined:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in line.quarantined.items())
        remarks.append(f"set aside: {reasons}")
    if line.outdated_hours:
        remarks.append(
            f"{line.outdated_hours} outdated hours, computed under older settings;"
            " 'iiot rerun --outdated' computes them under the current ones"
        )
    if line.dirty:
        hours = ", ".join(f"{hour} ({', '.join(why)})" for hour, why in line.dirty.items())
        remarks.append(f"to be computed again: {hours}")
    for name, sink in line.sinks.items():
        if sink.message:
            remarks.append(f"{name}: {sink.failures} failures, {sink.message}")
        if sink.rejected:
            remarks.append(f"{name}: {sink.rejected} entries refused and set aside")
    silent = sorted((at, topic) for topic, at in line.devices.items())[:1]
    remarks += [
        f"longest silent: {topic}, {_age((at_ms - at) / MS_PER_S)}"
        for at, topic in silent
        if at_ms - at > _MINUTE_S * MS_PER_S
    ]
    return remarks


def _age(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"
