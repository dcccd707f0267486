"""`iiot tables`: look at what was computed."""

import json
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iiot_platform.client import Client
from iiot_platform.config.settings import Settings

_SHOWN = 20
_HIDDEN = frozenset({"run_id", "config_version", "payload_hash", "values", "sub"})


def tables(
    context: typer.Context,
    *,
    line: Annotated[str | None, typer.Option(help="One line alone.")] = None,
    table: Annotated[str | None, typer.Option(help="Show rows of this table.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the newest rows.")] = _SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one list.")] = False,
) -> None:
    """List the tables with their rows, or show the newest rows of one."""
    client = Client(Settings.from_environ(context.obj).home)
    try:
        found = client.tables(line) if table is None else _rows(client, line, table, last)
    finally:
        client.close()
    if as_json:
        typer.echo(json.dumps(_values(found), indent=2, ensure_ascii=False, allow_nan=False))
        return
    title = "tables" if table is None else table
    Console(highlight=False).print(_shown(found, title))


def _rows(client: Client, line: str | None, table: str, last: int) -> pd.DataFrame:
    lines = client.lines() if line is None else [line]
    parts = [client.table(name, table, last=last) for name in lines]
    parts = [
        part if "line_name" in part.columns else part.assign(line_name=name)
        for name, part in zip(lines, parts, strict=True)
    ]
    filled = [part for part in parts if len(part)] or parts
    return pd.concat(filled, ignore_index=True).sort_values("ts", kind="stable").tail(last)


def _values(found: pd.DataFrame) -> list[dict[str, object]]:
    return [
        {str(name): _value(value) for name, value in row.items()}
        for row in found.to_dict(orient="records")
    ]


def _value(value: object) -> object:
    """A cell as JSON has it; what is missing or no number is null."""
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_value(item) for item in value]
    if value is None or value is pd.NA or (isinstance(value, float) and not _finite(value)):
        return None
    return value


def _finite(value: float) -> bool:
    return value - value == 0


def _shown(found: pd.DataFrame, title: str) -> Table:
    table = Table(title=escape(title), title_justify="left")
    columns = [name for name in found.columns if name not in _HIDDEN]
    for name in columns:
        numeric = pd.api.types.is_numeric_dtype(found[name])
        table.add_column(escape(str(name)), justify="right" if numeric else "left")
    for row in _values(found[columns]):
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    return table


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("+00:00", "Z")
