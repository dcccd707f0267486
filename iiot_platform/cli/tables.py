"""`iiot tables`: look at what was computed."""

import json
from datetime import datetime
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iiot_platform.client import Client
from iiot_platform.config.settings import Settings
from iiot_platform.core.clock import from_ms, hour_from_key, hour_start_ms

_SHOWN = 20
_Span = tuple[datetime | None, datetime | None]
_GAP = 2
_UTC = "+00:00"
_HIDDEN = frozenset({"run_id", "config_version", "payload_hash", "values", "sub", "bytes"})


def tables(
    context: typer.Context,
    *,
    line: Annotated[str | None, typer.Option(help="One line alone.")] = None,
    table: Annotated[str | None, typer.Option(help="Show rows of this table.")] = None,
    hour: Annotated[str | None, typer.Option(help="Rows of this hour: 2026-11-22-09:00.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the newest rows.")] = _SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one list.")] = False,
) -> None:
    """List the tables with their rows, or show the newest rows of one."""
    client = Client(Settings.from_environ(context.obj).home)
    try:
        found = (
            client.tables(line) if table is None else _rows(client, line, table, last, _span(hour))
        )
    finally:
        client.close()
    if as_json:
        typer.echo(json.dumps(_values(found), indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = Console(highlight=False)
    if table is None:
        found = found.assign(**{name: found[name].dt.floor("s") for name in ("first", "last")})
    shown, left_out = _shown(found, console.width)
    console.print(shown)
    if left_out:
        console.print(f"not shown: {', '.join(left_out)}; --json shows all", soft_wrap=True)


def _span(hour: str | None) -> _Span:
    """The hour's begin and end; neither where every hour is meant."""
    if hour is None:
        return None, None
    try:
        number = hour_from_key(hour)
    except ValueError as error:
        raise typer.BadParameter(
            f"'{hour}' is no hour such as 2026-11-22-09:00", param_hint="'--hour'"
        ) from error
    return from_ms(hour_start_ms(number)), from_ms(hour_start_ms(number + 1))


def _rows(
    client: Client,
    line: str | None,
    table: str,
    last: int,
    span: _Span,
) -> pd.DataFrame:
    start, end = span
    lines = client.lines() if line is None else [line]
    parts = [client.table(name, table, start=start, end=end, last=last) for name in lines]
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
        return value.isoformat(timespec="milliseconds")
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


def _shown(found: pd.DataFrame, width: int) -> tuple[Table, list[str]]:
    """The leading columns that fit a width, and the names of the others."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    columns = [str(name) for name in found.columns if name not in _HIDDEN]
    rows = [[_cell(row[name]) for name in columns] for row in _values(found[columns])]
    left = width
    fitting = 0
    for place, name in enumerate(columns):
        left -= _GAP + max(len(name), *(len(row[place]) for row in rows), 0)
        if left < 0 and fitting:
            break
        fitting += 1
        numeric = pd.api.types.is_numeric_dtype(found[name])
        table.add_column(escape(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row[:fitting]))
    return table, columns[fitting:]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value)
    return text.removesuffix(_UTC).removesuffix(".000").replace("T", " ") if _UTC in text else text
