import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest

from iiot_platform.alerts.grafana_queries import AlertQuery, alert_queries
from iiot_platform.client import Client
from iiot_platform.config.alerts import AlertSettings
from iiot_platform.config.settings import INFLUXDB
from iiot_platform.core import schema
from iiot_platform.core.clock import MS_PER_HOUR, hour_of, to_ms
from iiot_platform.core.pages import partition_page, run_page
from iiot_platform.orchestration.delivery import delivery_to
from iiot_platform.sinks.influxdb import InfluxSink
from tests.reference.grafana_frames import followed, links, marks, transformed
from tests.reference.grafana_queries import (
    Query,
    data_panels,
    interpolated,
    panel_queries,
    variable_queries,
)
from tests.servers import influx
from tests.servers.influx import Influx
from tests.servers.simulated_plant import (
    END_MS,
    HOUR,
    MACHINE,
    RUNS,
    START_MS,
    SimulatedTables,
    simulated_tables,
)
from tools.dashboards.__main__ import FOLDER
from tools.dashboards.links import HOUR as HOUR_COLUMN

BOARDS = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
del BOARDS["platform.json"]  # its metrics stand in Prometheus
TOLD = (*schema.measured(), schema.EVENTS)
NAMES = {c.name for table in TOLD for c in table.columns}
FILL_S = 200.0
EVERY_MS = 10_000


@dataclass(kw_only=True)
class Filled(Influx):
    """A server that has the simulated plant, beside whatever else it may have."""

    plant: SimulatedTables

    def series(self, influxql: str) -> list[dict[str, Any]]:
        """Those of the plant: a server that is not ours may have other lines."""
        tag = schema.LINE.name
        lines = self.plant.lines
        return [
            one
            for one in super().series(influxql)
            if one.get("tags", {}).get(tag, lines[0]) in lines
        ]

    def rows(self, table: schema.Table) -> pd.DataFrame:
        """What was computed of the plant's first line."""
        return self.plant.rows(table).to_pandas()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Filled from log through engine and outbox; of a foreign server only our lines are touched."""
    influx.require()
    with influx.server(tmp_path_factory.mktemp("influx")) as running:
        suffix = "" if running.process else f" {uuid.uuid4().hex[:8]}"
        with simulated_tables(tmp_path_factory.mktemp("plant"), suffix=suffix) as plant:
            engine = plant.engine
            delivery = delivery_to(INFLUXDB, running.settings)(engine)
            try:
                until = time.monotonic() + FILL_S
                for line in plant.lines:
                    # a request may take longer than it should where much runs beside
                    while (report := delivery.drain(line, FILL_S)).error is not None:
                        assert time.monotonic() < until, report.error
                        time.sleep(0.2)
                    assert (report.remaining, report.rejected) == (0, 0)
                yield Filled(**vars(running), plant=plant)
            finally:
                clean_up(running, plant.lines)


def clean_up(running: Influx, lines: tuple[str, ...]) -> None:
    """Takes the rows of lines away; a version that can not delete marks them."""
    if running.process is not None:
        return
    with InfluxSink(running.settings) as sink:
        for table in TOLD:
            nothing = table.arrow.empty_table()
            for line in lines:
                sink.rewrite(table, line, START_MS, START_MS + 2 * MS_PER_HOUR, nothing)


def chosen(server: Filled, board: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What is chosen of each variable, two values where several may be, and the empty ones."""
    values: dict[str, Any] = {}
    many = {v["name"] for v in board["templating"]["list"] if v.get("multi")}
    for name, query in variable_queries(board):
        found = sorted({row["value"] for row in server.query(filled_in(query, values))})
        if name == "line":
            found = [line for line in server.plant.lines if line in found]
        if not found:
            return values, [f"{query.where}: no values"]
        values[name] = found[:2] if name in many else MACHINE if MACHINE in found else found[0]
    return values, []


def filled_in(query: Query, values: Mapping[str, Any]) -> str:
    return interpolated(query.text, values, start_ms=START_MS, end_ms=END_MS, interval="10s")


def problems(server: Filled, board: Mapping[str, Any]) -> list[str]:
    """What a person would see as an empty list, an empty panel or an empty column."""
    values, found = chosen(server, board)
    if not found:
        for query in panel_queries(board):
            found += empty(query, server.series(filled_in(query, values)))
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
    """Each name of a column, misspelt at one place; what a column is shown as is no name.

    The condition that a row stands has its own test: version 1 lets rows without a field pass.
    """
    for found in re.finditer(rf'(?<!AS )"(\w+)"(?! != \'{schema.DELETED}\')', text):
        if found[1] in NAMES:
            yield found[1], f'{text[: found.start()]}"{found[1]}x"{text[found.end() :]}'


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_every_variable_and_panel_shows_data(server: Filled, name: str) -> None:
    assert problems(server, json.loads(BOARDS[name])) == []


def test_the_simulated_plant_brings_everything_that_is_shown(server: Filled) -> None:
    for table in schema.measured():
        rows = server.plant.rows(table)
        assert [n for n in rows.column_names if rows.column(n).null_count == len(rows)] == []
    quality = server.rows(schema.DATA_QUALITY)
    assert set(quality["reason"]) == {schema.GAP, schema.LATE, "not_json", "not_an_object"}
    for table in (schema.SIGNAL_ANOMALIES, schema.VIBRATION_ANOMALIES, schema.VALVE_ANOMALIES):
        assert server.rows(table)[["anomaly", "shift_event", "off_reference"]].sum().all()
    cycles = server.rows(schema.ELECTRICAL_CYCLES).filter(like="_anomaly")
    assert cycles.filter(regex="_anomaly$").sum().all()
    told = server.query(f'SELECT * FROM "{schema.EVENTS.measurement}"')
    kinds = {(r["line_name"], r["kind"]): r["run_id"] for r in told}
    first, second = server.plant.lines
    assert {key: run for key, run in kinds.items() if key[0] in (first, second)} == {
        (first, schema.SETTINGS_CHANGED): RUNS["changed"],
        (first, schema.GAP): RUNS["rerun"],
        (first, "rerun"): RUNS["rerun"],
        (second, schema.SETTINGS_CHANGED): RUNS["changed"],
        (second, schema.GAP): RUNS["settle"],
        (second, "settle"): RUNS["settle"],
    }


def test_the_newest_row_of_each_sensor_is_that_of_the_table(server: Filled) -> None:
    board = json.loads(BOARDS["signals.json"])
    query = next(q for q in panel_queries(board) if q.where.startswith("panel 'Newest row"))
    values = {"line": server.plant.line, "machine": MACHINE, "sensor": ["oil_pressure", "none"]}
    (row,) = server.query(filled_in(query, values))
    rows = server.rows(schema.SIGNAL_ANOMALIES)
    newest = rows[rows["sensor_name"] == "oil_pressure"].iloc[-1]
    assert (row["run"], row["value"], row["status"]) == (
        newest["run_id"],
        newest["value"],
        newest["status"],
    )


def test_value_limits_and_anomalies_are_those_of_the_interval(server: Filled) -> None:
    board = json.loads(BOARDS["vibration.json"])
    points, limits = (q for q in panel_queries(board) if q.where.startswith("panel 'y axis'"))
    values = {"line": server.plant.line, "machine": MACHINE, "sensor": ["drive_bearing"]}
    rows = server.rows(schema.VIBRATION_ANOMALIES)
    own = rows[rows["machine_name"] == MACHINE]
    interval = own["ts"].astype("int64") // EVERY_MS
    at = interval[own["vib_accel_rms_y_anomaly"] == 1].iloc[0]
    own = own[interval == at]
    assert len(own) > 1
    y = own.filter(like="vib_accel_rms_y").mean(numeric_only=True)

    point, limit = (
        next(r for r in server.query(filled_in(q, values)) if r["time"] == at * EVERY_MS)
        for q in (points, limits)
    )
    assert point["y"] == pytest.approx(y["vib_accel_rms_y"])
    assert point["anomaly"] == 1
    assert point["run"] == own["run_id"].iloc[-1]
    reach = y["vib_accel_rms_y_z_score_thresh"] * y["vib_accel_rms_y_model_std"]
    assert limit["upper limit"] == pytest.approx(y["vib_accel_rms_y_model_avg"] + reach)
    assert limit["lower limit"] == pytest.approx(y["vib_accel_rms_y_model_avg"] - reach)


def test_the_coverage_of_hours_is_that_of_the_tables(server: Filled) -> None:
    board = json.loads(BOARDS["quality.json"])
    query = next(q for q in panel_queries(board) if q.where.startswith("panel 'Coverage of hours"))
    values = {"line": list(server.plant.lines), "reason": schema.GAP}
    shown = {
        (row["line_name"], hour_of(row["time"])): row["coverage"]
        for row in server.query(filled_in(query, values))
    }
    with closing(Client(server.plant.home)) as client:
        exact = {
            (line, hour_of(to_ms(ts.to_pydatetime()))): share
            for line in server.plant.lines
            for ts, share in client.coverage(line).itertuples(index=False)
        }
    assert shown == pytest.approx(exact)
    assert min(shown.values()) == pytest.approx(1 - 60 / 3_600)


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_any_misspelt_name_is_found(server: Filled, name: str) -> None:
    board = json.loads(BOARDS[name])
    values, _ = chosen(server, board)
    tried = 0
    for query in panel_queries(board):
        for column, text in mutants(query.text):
            mutant = Query(query.where, text)
            answer = server.series(filled_in(mutant, values))
            assert empty(mutant, answer), f"'{column}x' goes unnoticed: {text}"
            tried += 1
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            text = variable["query"]
            for column, mutant_text in mutants(text):
                variable["query"] = mutant_text
                assert chosen(server, board)[1], f"'{column}x' goes unnoticed: {mutant_text}"
                tried += 1
            variable["query"] = text
    assert tried > 30


def shown_by(server: Filled, query: Query, values: Mapping[str, Any]) -> set[str]:
    """The columns of a query's answer, tags that it tells apart among them."""
    series = server.series(filled_in(query, values))
    return {name for one in series for name in (*one["columns"], *one.get("tags", {}))}


def fields_of_links(panel: Mapping[str, Any]) -> set[str]:
    return set(re.findall(r"\$\{__data\.fields\.(\w+)", json.dumps(panel)))


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_overrides_and_links_name_columns_that_come_back(server: Filled, name: str) -> None:
    board = json.loads(BOARDS[name])
    values, _ = chosen(server, board)
    for panel in data_panels(board):
        framed: set[str] = set()
        for target in panel["targets"]:
            columns = shown_by(server, Query(panel["title"], target["query"]), values)
            table = target["resultFormat"] == "table"
            framed |= {"Time" if column == "time" else column for column in columns}
            if table:
                assert fields_of_links(panel) <= columns | {HOUR_COLUMN}, panel["title"]
        framed |= {step["options"].get("alias") for step in panel.get("transformations", ())}
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in framed, panel["title"]
        assert HOUR_COLUMN not in fields_of_links(panel) or HOUR_COLUMN in framed, panel["title"]
        if fields_of_links(panel) - {HOUR_COLUMN}:
            assert any(t["resultFormat"] == "table" for t in panel["targets"]), panel["title"]


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_annotations_mark_what_happened_where_and_until_when(server: Filled, name: str) -> None:
    board = json.loads(BOARDS[name])
    values, _ = chosen(server, board)
    told = server.query(f'SELECT * FROM "{schema.EVENTS.measurement}"')
    happened = {
        (row["line_name"], row["text"], row["hour"], row["time"], row["until_ms"]) for row in told
    }
    for annotation in board["annotations"]["list"]:
        target = annotation["target"]
        query = Query(annotation["name"], target["query"])
        found = marks(server.series(filled_in(query, values)), target)
        assert found, annotation["name"]
        for mark in found:
            if f'FROM "{schema.EVENTS.measurement}"' in target["query"]:
                words = ("title", "text", "tags", "time", "timeEnd")
                assert tuple(mark[word] for word in words) in happened, annotation["name"]
            else:
                assert mark["title"] == mark["tags"] != "", annotation["name"]
                assert mark["text"] == "relearned"
                assert mark["timeEnd"] == mark["time"]


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_points_and_rows_link_to_their_run_and_the_partition_of_their_hour(
    server: Filled, name: str
) -> None:
    board = json.loads(BOARDS[name])
    values, _ = chosen(server, board)
    line = values["line"] if isinstance(values["line"], str) else ""
    seen, runs = set(), set()
    for panel in data_panels(board):
        for column, link in links(panel):
            if "partition=" not in link["url"] and "/runs/" not in link["url"]:
                continue
            (target,) = (t for t in panel["targets"] if t["resultFormat"] == "table")
            query = Query(panel["title"], target["query"])
            rows = transformed(server.query(filled_in(query, values)), panel, target["refId"])
            assert rows, panel["title"]
            for row in rows:
                if row.get("run", "") is None:
                    continue  # an interval without a point
                own = line or row.get("line") or row["line_name"]
                found = followed(
                    link["url"], column, row, {"dagster_url": "http://d", "line": line}
                )
                if "/runs/" in link["url"]:
                    assert found == run_page("http://d", row["run"]), panel["title"]
                    runs.add(row["run"])
                    continue
                table = found.split("?")[0].rpartition("/")[2]
                at = hour_of(row["Time"])
                assert found == partition_page("http://d", own, table, at), panel["title"]
                seen.add((own, at))
    assert {at for _, at in seen} == {HOUR, HOUR + 1}
    assert len(runs) > 1
    assert runs <= set(RUNS.values())


MARKS = {table.measurement: table.mark for table in TOLD}


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_no_query_of_a_dashboard_shows_rows_that_are_marked_as_deleted(name: str) -> None:
    for query in panel_queries(json.loads(BOARDS[name])):
        assert_stands(query.text)


def test_no_alert_counts_rows_that_are_marked_as_deleted() -> None:
    for alert in ALERTS:
        assert_stands(alert.text)


def assert_stands(text: str) -> None:
    (measurement,) = re.findall(r' FROM "(\w+)" WHERE ', text)
    assert f" AND \"{MARKS[measurement]}\" != '{schema.DELETED}'" in text


ALERTS = list(alert_queries(AlertSettings()))


def alert_answer(server: Filled, text: str, *, end_ms: int = END_MS) -> list[dict[str, Any]]:
    return server.series(interpolated(text, {}, start_ms=START_MS, end_ms=end_ms, interval="10s"))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_alert_has_data_and_a_misspelt_name_is_found(
    server: Filled, alert: AlertQuery
) -> None:
    assert empty(Query(alert.name, alert.text), alert_answer(server, alert.text)) == []
    tried = 0
    for column, text in mutants(alert.text):
        mutant = Query(alert.name, text)
        assert empty(mutant, alert_answer(server, text)), f"'{column}x' goes unnoticed: {text}"
        tried += 1
    assert tried >= len(alert.tags)


def test_an_alert_sees_the_newest_value_of_each_series(server: Filled) -> None:
    alert = next(a for a in ALERTS if a.name == "anomaly_ratio/signal_anomalies/anomaly_ratio")
    rows = server.rows(schema.SIGNAL_ANOMALIES)
    tags = list(schema.SIGNAL_ANOMALIES.names("tag"))
    newest = rows.groupby(tags)["anomaly_ratio"].last()
    found = {
        tuple(one["tags"][tag] for tag in tags): influx.series_rows(one)[-1]["value"]
        for one in alert_answer(server, alert.text)
        if one["tags"][tags[0]] == server.plant.line
    }
    assert found == pytest.approx(newest.to_dict())


def test_a_device_counts_as_silent_once_two_intervals_are_empty(server: Filled) -> None:
    alert = next(a for a in ALERTS if a.name == "silent_device/signals")
    assert alert.below is not None
    for silent_s, fires in ((0, False), (599, False), (1_200, True)):
        series = alert_answer(server, alert.text, end_ms=END_MS - 1 + 1_000 * silent_s)
        assert len(series) == 5
        last = [influx.series_rows(one)[-1]["value"] for one in series]
        assert all((value < alert.below) is fires for value in last), silent_s
