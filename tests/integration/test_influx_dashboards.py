import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pytest

from iiot_platform.alerts.grafana_queries import AlertQuery, alert_queries
from iiot_platform.config.alerts import AlertSettings
from iiot_platform.core import schema
from iiot_platform.sinks.influxdb import InfluxSink
from tests.reference.grafana_queries import (
    Query,
    data_panels,
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
END_MS = START_MS + 1_000 * COUNT
LINE = "line/1 (test)"
BOARDS = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
del BOARDS["platform.json"]  # its metrics stand in Prometheus
NAMES = {c.name for table in (*schema.measured(), schema.EVENTS) for c in table.columns}


def rows_of(table: schema.Table) -> pa.Table:
    reasons = {"reason": [schema.GAP, schema.LATE, "not_json"] * (COUNT // 3)}
    kinds = {"kind": [schema.SETTINGS_CHANGED, "rerun", schema.GAP] * (COUNT // 3)}
    more = {schema.DATA_QUALITY: reasons, schema.EVENTS: kinds}.get(table, {})
    return make_rows(table, COUNT, line=LINE, start_ms=START_MS, **more)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    influx.require()
    with influx.server(tmp_path_factory.mktemp("influx")) as running:
        with InfluxSink(running.settings) as sink:
            for table in (*schema.measured(), schema.EVENTS):
                sink.write(table, rows_of(table))
        yield running


def chosen(server: Influx, board: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What is chosen of each variable, two values where several may be, and the empty ones."""
    values: dict[str, Any] = {}
    many = {v["name"] for v in board["templating"]["list"] if v.get("multi")}
    for name, query in variable_queries(board):
        found = sorted({row["value"] for row in server.query(filled_in(query, values))})
        if not found:
            return values, [f"{query.where}: no values"]
        values[name] = found[:2] if name in many else LINE if LINE in found else found[0]
    return values, []


def filled_in(query: Query, values: Mapping[str, Any]) -> str:
    return interpolated(query.text, values, start_ms=START_MS, end_ms=END_MS, interval="10s")


def problems(server: Influx, board: Mapping[str, Any]) -> list[str]:
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
def test_every_variable_and_panel_shows_data(server: Influx, name: str) -> None:
    assert problems(server, json.loads(BOARDS[name])) == []


def test_the_newest_row_of_each_sensor_is_that_of_the_table(server: Influx) -> None:
    board = json.loads(BOARDS["signals.json"])
    query = next(q for q in panel_queries(board) if q.where.startswith("panel 'Newest row"))
    values = {"line": LINE, "machine": "machine_name0", "sensor": ["sensor_name0", "none"]}
    (row,) = server.query(filled_in(query, values))
    rows = make_rows(schema.SIGNAL_ANOMALIES, COUNT, line=LINE, start_ms=START_MS).to_pylist()
    newest = [r for r in rows if r["machine_name"] == "machine_name0"][-1]
    assert (row["run"], row["value"], row["status"]) == (
        newest["run_id"],
        newest["value"],
        newest["status"],
    )


def test_value_limits_and_anomalies_are_those_of_the_interval(server: Influx) -> None:
    board = json.loads(BOARDS["vibration.json"])
    points, limits = (q for q in panel_queries(board) if q.where.startswith("panel 'y axis'"))
    values = {"line": LINE, "machine": "machine_name1", "sensor": ["sensor_name1"]}
    rows = make_rows(schema.VIBRATION_ANOMALIES, COUNT, line=LINE, start_ms=START_MS).to_pandas()
    own = rows[rows["machine_name"] == "machine_name1"]
    own = own[(own["ts"].astype("int64") - START_MS) // 10_000 == 7]
    y = own.filter(like="vib_accel_rms_y").mean(numeric_only=True)

    (point,) = (
        r for r in server.query(filled_in(points, values)) if r["time"] == START_MS + 70_000
    )
    assert point["y"] == pytest.approx(y["vib_accel_rms_y"])
    assert point["anomaly"] == own["vib_accel_rms_y_anomaly"].max()
    assert point["run"] == own["run_id"].iloc[-1]
    (limit,) = (
        r for r in server.query(filled_in(limits, values)) if r["time"] == START_MS + 70_000
    )
    reach = y["vib_accel_rms_y_z_score_thresh"] * y["vib_accel_rms_y_model_std"]
    assert limit["upper limit"] == pytest.approx(y["vib_accel_rms_y_model_avg"] + reach)
    assert limit["lower limit"] == pytest.approx(y["vib_accel_rms_y_model_avg"] - reach)


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_any_misspelt_name_is_found(server: Influx, name: str) -> None:
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


def shown_by(server: Influx, query: Query, values: Mapping[str, Any]) -> set[str]:
    """The columns of a query's answer, tags that it tells apart among them."""
    series = server.series(filled_in(query, values))
    return {name for one in series for name in (*one["columns"], *one.get("tags", {}))}


def fields_of_links(panel: Mapping[str, Any]) -> set[str]:
    return set(re.findall(r"\$\{__data\.fields\.(\w+)", json.dumps(panel)))


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_overrides_links_and_annotations_name_columns_that_come_back(
    server: Influx, name: str
) -> None:
    board = json.loads(BOARDS[name])
    values, _ = chosen(server, board)
    for panel in data_panels(board):
        framed: set[str] = set()
        for target in panel["targets"]:
            columns = shown_by(server, Query(panel["title"], target["query"]), values)
            table = target["resultFormat"] == "table"
            framed |= {"Time" if column == "time" else column for column in columns}
            if table:
                assert fields_of_links(panel) <= columns, panel["title"]
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in framed, panel["title"]
        if fields_of_links(panel):
            assert any(t["resultFormat"] == "table" for t in panel["targets"]), panel["title"]
    for annotation in board["annotations"]["list"]:
        target = annotation["target"]
        columns = shown_by(server, Query(annotation["name"], target["query"]), values)
        named = {value for key, value in target.items() if key.endswith("Column")}
        assert named <= columns, annotation["name"]
        assert target["fromAnnotations"]


MARKS = {table.measurement: table.mark for table in (*schema.measured(), schema.EVENTS)}


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


def alert_answer(server: Influx, text: str, *, end_ms: int = END_MS) -> list[dict[str, Any]]:
    return server.series(interpolated(text, {}, start_ms=START_MS, end_ms=end_ms, interval="10s"))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_alert_has_data_and_a_misspelt_name_is_found(
    server: Influx, alert: AlertQuery
) -> None:
    assert empty(Query(alert.name, alert.text), alert_answer(server, alert.text)) == []
    tried = 0
    for column, text in mutants(alert.text):
        mutant = Query(alert.name, text)
        assert empty(mutant, alert_answer(server, text)), f"'{column}x' goes unnoticed: {text}"
        tried += 1
    assert tried >= len(alert.tags)


def test_an_alert_sees_the_newest_value_of_each_series(server: Influx) -> None:
    alert = next(a for a in ALERTS if a.name == "anomaly_ratio/signal_anomalies/anomaly_ratio")
    rows = rows_of(schema.SIGNAL_ANOMALIES).to_pandas()
    newest = rows.groupby("machine_name")["anomaly_ratio"].last()
    found = {
        one["tags"]["machine_name"]: influx.series_rows(one)[-1]["value"]
        for one in alert_answer(server, alert.text)
    }
    assert found == pytest.approx(newest.to_dict())


def test_a_device_counts_as_silent_once_two_intervals_are_empty(server: Influx) -> None:
    alert = next(a for a in ALERTS if a.name == "silent_device/signals")
    assert alert.below is not None
    for silent_s, fires in ((0, False), (599, False), (1_200, True)):
        series = alert_answer(server, alert.text, end_ms=END_MS - 1 + 1_000 * silent_s)
        assert len(series) == 3
        last = [influx.series_rows(one)[-1]["value"] for one in series]
        assert all((value < alert.below) is fires for value in last), silent_s
