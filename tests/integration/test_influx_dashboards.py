import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from iiot_platform.core import schema
from iiot_platform.sinks.influxdb import InfluxSink
from tests.reference.grafana_queries import (
    Query,
    interpolated,
    panel_queries,
    variable_queries,
)
from tests.reference.table_rows import make_rows
from tests.servers import influx
from tests.servers.influx import Influx
from tools.dashboards.__main__ import FOLDER

START_MS = 1_795_338_000_000
COUNT = 600
RANGE = {"start_ms": START_MS, "end_ms": START_MS + 1_000 * COUNT, "interval": "10s"}
LINE = "line/1 (test)"
BOARDS = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
NAMES = {c.name for table in schema.measured() for c in table.columns}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    influx.require()
    with influx.server(tmp_path_factory.mktemp("influx")) as running:
        with InfluxSink(running.settings) as sink:
            for table in schema.measured():
                sink.write(table, make_rows(table, COUNT, line=LINE, start_ms=START_MS))
        yield running


def problems(server: Influx, board: Mapping[str, Any]) -> list[str]:
    """What a person would see as an empty list, an empty panel or an empty column."""
    chosen: dict[str, str] = {}
    found = []
    for name, query in variable_queries(board):
        rows = server.query(interpolated(query.text, chosen, **RANGE))
        values = sorted({row["value"] for row in rows})
        if not values:
            return [f"{query.where}: no values"]
        chosen[name] = LINE if LINE in values else values[0]
    for query in panel_queries(board):
        found += empty(query, server.series(interpolated(query.text, chosen, **RANGE)))
    return found


def empty(query: Query, series: list[dict[str, Any]]) -> list[str]:
    rows = [row for one in series for row in influx.series_rows(one)]
    if not rows:
        return [f"{query.where}: no rows"]
    return [
        f"{query.where}: column '{column}' is empty"
        for column in rows[0]
        if all(row[column] in {None, ""} for row in rows)
    ]


def mutants(text: str) -> Iterator[tuple[str, str]]:
    """Each name of a column, misspelt at one place; what a column is shown as is no name."""
    for found in re.finditer(r'(?<!AS )"(\w+)"', text):
        if found[1] in NAMES:
            yield found[1], f'{text[: found.start()]}"{found[1]}x"{text[found.end() :]}'


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_every_variable_and_panel_shows_data(server: Influx, name: str) -> None:
    assert problems(server, json.loads(BOARDS[name])) == []


def test_the_newest_row_of_each_sensor_is_that_of_the_table(server: Influx) -> None:
    board = json.loads(BOARDS["signals.json"])
    query = next(q for q in panel_queries(board) if '"run_id"' in q.text)
    chosen = {"line": LINE, "machine": "machine_name0", "sensor": "sensor_name0"}
    (row,) = server.query(interpolated(query.text, chosen, **RANGE))
    rows = make_rows(schema.SIGNAL_ANOMALIES, COUNT, line=LINE, start_ms=START_MS).to_pylist()
    newest = [r for r in rows if r["machine_name"] == "machine_name0"][-1]
    assert (row["run"], row["value"], row["status"]) == (
        newest["run_id"],
        newest["value"],
        newest["status"],
    )


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_any_misspelt_name_is_found(server: Influx, name: str) -> None:
    board = json.loads(BOARDS[name])
    places = [
        *((target, "query") for panel in board["panels"] for target in panel["targets"]),
        *((a["target"], "query") for a in board["annotations"]["list"]),
        *((v, "query") for v in board["templating"]["list"] if v["type"] == "query"),
    ]
    tried = 0
    for holder, key in places:
        text = holder[key]
        for column, mutant in mutants(text):
            holder[key] = mutant
            assert problems(server, board), f"'{column}x' goes unnoticed: {mutant}"
            tried += 1
        holder[key] = text
    assert tried > 30
