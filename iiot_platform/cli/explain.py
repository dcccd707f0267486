"""`iiot explain`: how a row came to be what it is."""

import json
import math
import uuid
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iiot_platform.cli.moments import moment_ms
from iiot_platform.cli.payload_text import payload_text
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import Settings
from iiot_platform.core import schema
from iiot_platform.core.clock import from_ms, now_ms
from iiot_platform.core.errors import ConfigError, StorageError, nearest
from iiot_platform.core.pages import run_page
from iiot_platform.engine.explain import EXPLAINED, Explainer, Explanation, RawMessage
from iiot_platform.engine.ledger import Ledger
from iiot_platform.engine.log_reader import LogReader
from iiot_platform.engine.table_store import TableStore

_RAW_SHOWN: Final = 3


def explain(
    context: typer.Context,
    *,
    line: Annotated[str, typer.Option(help="The line.")],
    table: Annotated[str, typer.Option(help="The table, such as signal_anomalies.")],
    at: Annotated[str, typer.Option(help="The row's time, or one behind it.")],
    series: Annotated[
        str | None,
        typer.Option(
            help="machine/name[/operation], or what is clear of it; default: the newest row's."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a row's run, settings, window, raw messages and earlier versions."""
    settings = Settings.from_environ(context.obj)
    names = [known.name for known in EXPLAINED]
    if table not in names:
        raise ConfigError(f"no table of series is called '{table}'; {nearest(table, names)}")
    if not Ledger.is_at(settings.home):
        raise StorageError(f"'{settings.home.root}' holds no ledger: nothing was computed there")
    ledger = Ledger.of(settings.home)
    try:
        explainer = Explainer(LogReader(settings.home), ledger, TableStore(settings.home), line)
        chosen = schema.TABLES[table]
        at_ms = moment_ms(at, timezone=_timezone(settings, context), now_ms=now_ms())
        key = (
            explainer.newest(chosen, at_ms) if series is None else explainer.series(chosen, series)
        )
        found = explainer.explain(chosen, key, at_ms)
    finally:
        ledger.close()
    if as_json:
        typer.echo(json.dumps(_values(found, settings), indent=2, ensure_ascii=False))
        return
    _print(Console(highlight=False), found, settings)


def _timezone(settings: Settings, context: typer.Context) -> str:
    if not settings.plant_path.exists():
        return "UTC"
    return load_plant(settings.plant_path, context.obj).timezone


def _run_page(settings: Settings, run_id: str) -> str | None:
    """The run's page in Dagster; None where it ran on the command line."""
    try:
        uuid.UUID(run_id)
    except ValueError:
        return None
    return run_page(settings.dagster_url, run_id)


def _print(console: Console, found: Explanation, settings: Settings) -> None:
    name = "/".join(part for part in found.series[1:] if part)
    exact = "" if found.exact else ", the nearest before the time asked for"
    _say(console, f"{found.line} {name} in {found.table} at {_time(found.ts)}{exact}", "bold")
    console.print(_row_table(found))
    _print_run(console, found, settings)
    _print_settings(console, found)
    _print_windows(console, found)
    _print_raw(console, found)
    _print_versions(console, found)


def _row_table(found: Explanation) -> Table:
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    own = schema.TABLES[found.table].names("field", "internal")
    for column in own:
        table.add_row(escape(column), escape(_cell(found.row[column])))
    return table


def _print_run(console: Console, found: Explanation, settings: Settings) -> None:
    run_id = found.row["run_id"]
    _say(console, f"run {run_id}  {_run_page(settings, run_id) or 'without Dagster'}", "bold")
    for batch in found.batches:
        _say(
            console,
            f"  {batch.kind} batch, offsets {batch.lo} to {batch.hi}, committed"
            f" {_time(batch.committed_ms)} as version {batch.hour_version} of the hour,"
            f" {batch.seconds:.2f} s, code {batch.code_version}",
        )
        if batch.kept_below:
            _say(
                console,
                f"    computed from readings: raw before offset {batch.kept_below} was gone",
            )
    if not found.batches:
        _say(console, "  the ledger knows no batch of this run for the hour")


def _print_settings(console: Console, found: Explanation) -> None:
    version = found.row["config_version"]
    if found.settings is None:
        _say(console, f"settings {version}: not known any more", "bold")
        return
    _say(console, f"settings {version}", "bold")
    for part, parameters in found.parameters.items():
        values = ", ".join(
            f"{name} {value}" for name, value in parameters.model_dump(mode="json").items()
        )
        _say(console, f"  {part}: {values}")


def _print_windows(console: Console, found: Explanation) -> None:
    if found.window_note:
        _say(console, "window", "bold")
        _say(console, f"  none: {found.window_note}")
    for window in found.windows:
        model = (
            "learning" if window.mean is None else f"mean {window.mean:.6g}, std {window.std:.6g}"
        )
        values = " ".join(f"{value:.6g}" for value in window.values)
        _say(console, f"window of {window.quantity}", "bold")
        _say(console, f"  {model}, {len(window.values)} accepted values: {values}")


def _print_raw(console: Console, found: Explanation) -> None:
    _say(console, f"raw messages: {found.messages}", "bold")
    for message in found.raw[-_RAW_SHOWN:]:
        place = message.file or _why_gone(message)
        topic = payload_text(message.topic.encode("utf-8", "surrogatepass"))
        _say(console, f"  offset {message.offset} {_time(message.received_ms)} {topic}")
        _say(console, f"    {place}")
        if message.file is not None:
            _say(console, f"    {payload_text(message.payload)}")


def _why_gone(message: RawMessage) -> str:
    if message.gone:
        return f"raw message is gone ({message.gone}), reading kept"
    return "no longer in the log"


def _print_versions(console: Console, found: Explanation) -> None:
    word = "it was different before" if found.ever_different else "it never was different"
    _say(console, f"versions: {len(found.versions)}; {word}, as far as files are kept", "bold")
    columns = [
        name
        for name in schema.TABLES[found.table].names("field", "provenance")
        if len({str(v.row[name]) for v in found.versions if v.row is not None}) > 1
    ]
    for version in found.versions:
        span = f"  from version {version.added_version}"
        span += (
            ", stands"
            if version.dropped_version is None
            else f" to {version.dropped_version}, replaced {_time(version.dropped_ms or 0)}"
        )
        if version.row is None:
            _say(console, f"{span}: its file is gone")
        else:
            values = ", ".join(f"{name} {_cell(version.row[name])}" for name in columns)
            _say(console, f"{span}: {values}" if values else span)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(escape(text), style=style, soft_wrap=True)


def _values(found: Explanation, settings: Settings) -> dict[str, Any]:
    return {
        "line": found.line,
        "table": found.table,
        "series": found.series._asdict(),
        "ts": _time(found.ts),
        "exact": found.exact,
        "row": _plain(found.row),
        "run_page": _run_page(settings, found.row["run_id"]),
        "batches": [
            batch._asdict() | {"committed": _time(batch.committed_ms)} for batch in found.batches
        ],
        "settings_version": found.row["config_version"],
        "settings_known": found.settings is not None,
        "parameters": {
            part: parameters.model_dump(mode="json")
            for part, parameters in found.parameters.items()
        },
        "windows": [window._asdict() for window in found.windows],
        "window_note": found.window_note,
        "messages": found.messages,
        "raw": [
            {
                "offset": message.offset,
                "topic": message.topic,
                "file": message.file,
                "gone": message.gone,
                "received": _time(message.received_ms),
                "payload": payload_text(message.payload, len(message.payload)),
            }
            for message in found.raw
        ],
        "ever_different": found.ever_different,
        "versions": [
            version._asdict() | {"row": None if version.row is None else _plain(version.row)}
            for version in found.versions
        ],
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON has it; what is no number is null."""
    return {name: _plain_value(value) for name, value in row.items()}


def _plain_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def _time(ts_ms: int) -> str:
    return f"{from_ms(ts_ms):%Y-%m-%dT%H:%M:%S}.{ts_ms % 1_000:03d}Z"
