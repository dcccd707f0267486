"""Write the reference of the tables: `python -m tools.tables`; `--check` only compares."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa

from iiot_platform.core import schema
from tools import generated

FILE: Final = Path(__file__).resolve().parents[1] / "docs" / "tables.md"
_HEAD: Final = """\
# Tables

Generated from `iiot_platform/core/schema.py` by `make dashboards`; do not edit.

Every table is a set of Parquet files per line and hour (UTC) of event time; those with a
measurement also stand in databases, tags and fields under the same names: in InfluxDB as that
measurement, in PostgreSQL as a table of the same name as here. A row is named by its time and
tags: computing it again replaces it. `run_id` and `config_version` say which run and
which settings made it. *Internal* columns stand in Parquet alone. A column may be empty only where
*empty* says so.

`iiot tables` lists what there is; a notebook reads it so:

```python
from iiot_platform.client import Client

Client("var").table("line1", "signal_anomalies", start="2026-11-22 08:00")
```
"""
_TYPES: Final = {
    schema.TS: "time",
    schema.FLOAT: "float",
    schema.INT: "integer",
    schema.TEXT: "text",
    pa.list_(schema.FLOAT): "list of float",
}


def rendered() -> str:
    """The text of the reference."""
    rows = ["| table | InfluxDB measurement | what it holds |", "|---|---|---|"]
    rows += [
        f"| [{table.name}](#{table.name}) | {_code(table.measurement)} | {table.description} |"
        for table in schema.TABLES.values()
    ]
    parts = [_HEAD, "\n".join(rows)]
    parts += ["\n".join(_section(table)) for table in schema.TABLES.values()]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _section(table: schema.Table) -> Iterator[str]:
    yield f"## {table.name}"
    yield ""
    yield table.description
    if table.measurement:
        yield f"InfluxDB measurement: {_code(table.measurement)}."
    yield ""
    yield "| column | role | type | unit | empty | what it says |"
    yield "|---|---|---|---|---|---|"
    for column in table.columns:
        name = _TYPES.get(column.type, str(column.type))
        empty = "yes" if column.nullable else ""
        cells = (_code(column.name), column.role, name, column.unit, empty, column.description)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _code(name: str | None) -> str:
    return f"`{name}`" if name else ""


def main() -> int:
    """Write or check; 1 where a check finds an outdated file."""
    return generated.main("tools.tables", __doc__, FILE.parent, FILE.name, {FILE.name: rendered()})


if __name__ == "__main__":
    sys.exit(main())
