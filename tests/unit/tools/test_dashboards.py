import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from iiot_platform.core import schema
from tests.reference.grafana_queries import (
    data_panels,
    interpolated,
    panel_queries,
    variable_queries,
)
from tools.dashboards.__main__ import FOLDER, outdated, rendered
from tools.dashboards.influxql import DATASOURCE_UID, Source

PROVISIONING = FOLDER.parent / "provisioning"
BOARDS = sorted(rendered().keys() - {"platform.json"})
"""Those of the tables; the platform's own metrics stand in Prometheus."""


def test_the_committed_dashboards_are_those_of_their_source() -> None:
    assert outdated() == [], "run: python -m tools.dashboards"


def test_a_changed_a_missing_and_a_foreign_file_are_found(tmp_path: Path) -> None:
    assert outdated(tmp_path) == sorted(rendered())
    for name, text in rendered().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert outdated(tmp_path) == []
    (tmp_path / "signals.json").write_text("{}", encoding="utf-8")
    (tmp_path / "old.json").write_text("{}", encoding="utf-8")
    assert outdated(tmp_path) == ["old.json", "signals.json"]


def test_a_name_that_is_not_declared_can_not_be_written() -> None:
    source = Source(schema.SIGNAL_ANOMALIES)
    with pytest.raises(KeyError, match="has no column 'valeu'"):
        source.name("valeu")
    with pytest.raises(ValueError, match="'ts' of table 'signal_anomalies' is time"):
        source.name("ts")


@pytest.mark.parametrize("name", BOARDS)
def test_queries_run_on_every_version_of_influxdb(name: str) -> None:
    board = json.loads(rendered()[name])
    assert board["schemaVersion"] == 42
    queries = [*panel_queries(board), *(query for _, query in variable_queries(board))]
    assert len(queries) > 3
    measurements = {table.measurement for table in (*schema.measured(), schema.EVENTS)}
    for query in queries:
        assert query.text.count("$timeFilter") == 1, query.where
        sources = re.split(r" (?:WHERE|WITH) ", query.text.split(" FROM ")[1])[0]
        assert {source.strip('"') for source in sources.split(", ")} <= measurements, query.where


def read_and_written(board: dict[str, Any]) -> Any:
    """What Grafana's own types of schema 42 keep of a dashboard."""
    # behind tools.dashboards, which takes the warning that the SDK gives at its import
    from grafana_foundation_sdk.models.dashboard import Dashboard  # noqa: PLC0415 - as said

    plugins.register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))


@pytest.mark.parametrize("name", sorted(rendered()))
def test_the_types_of_grafana_know_every_field_of_a_dashboard(name: str) -> None:
    board = json.loads(rendered()[name])
    assert read_and_written(board) == board
    panel = next(data_panels(board))
    for place in (board, panel, panel["gridPos"], panel["fieldConfig"], panel["options"]):
        place["titel"] = "misspelt"
        assert read_and_written(board) != board
        del place["titel"]
    assert read_and_written(board) == board


@pytest.mark.parametrize("name", BOARDS)
def test_dashboards_use_the_provisioned_data_source(name: str) -> None:
    file = PROVISIONING / "datasources" / "influxdb.yaml"
    (source,) = yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]
    assert source["uid"] == DATASOURCE_UID
    assert source["secureJsonData"] == {"httpHeaderValue1": "Token $INFLUX_TOKEN"}
    board = json.loads(rendered()[name])
    targets = [target for panel in data_panels(board) for target in panel["targets"]]
    assert {target["datasource"]["uid"] for target in targets} == {DATASOURCE_UID}


@pytest.mark.parametrize("name", sorted(rendered()))
def test_times_are_shown_in_the_zone_that_is_set_for_the_plant(name: str) -> None:
    assert json.loads(rendered()[name])["timezone"] == ""  # else it would win over Grafana's own


RUN_LINK = "${dagster_url:raw}/runs/${"
PARTITION = "?view=partitions&partition=${"
NEWEST = "shows the newest interval, whose run and hour stand in the table below"
WITHOUT_RUN = {
    "Freshness: newest interval of each line": NEWEST,
    "Largest lateness in the newest interval": NEWEST,
    "States of $line": "Grafana would show a run as a state; the table of newest changes has it",
    "Coverage of hours": "an hour is the work of many runs",
    "Sum in the chosen time": "is of any number of runs and hours",
}
"""The panels whose points lead to no run, and why."""
WITHOUT_PARTITION = WITHOUT_RUN.keys() - {"Coverage of hours"}


def test_every_panel_leads_to_the_run_and_the_hour_of_what_it_shows() -> None:
    panels = [p for name in BOARDS for p in data_panels(json.loads(rendered()[name]))]
    assert {p["title"] for p in panels if RUN_LINK not in json.dumps(p)} == WITHOUT_RUN.keys()
    assert {p["title"] for p in panels if PARTITION not in json.dumps(p)} == WITHOUT_PARTITION
    for panel in panels:
        assert "${dagster_url:raw}/assets/" in json.dumps(panel), panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_links_take_run_hour_and_line_from_the_frame_of_their_point(name: str) -> None:
    board = json.loads(rendered()[name])
    (line,) = (v for v in board["templating"]["list"] if v["name"] == "line")
    for panel in data_panels(board):
        text = json.dumps(panel)
        if "${__data.fields.run}" in text:
            framed = [t for t in panel["targets"] if t["resultFormat"] == "table"]
            assert 'last("run_id") AS "run"' in framed[0]["query"], panel["title"]
        # several chosen lines are none that an address could name
        assert not (line.get("multi") and "/assets/${line:" in text), panel["title"]
        for tag in re.findall(r"\$\{__field\.labels\.(\w+)", text):
            steps = [s["options"] for s in panel.get("transformations", ())]
            labelled = [s["fields"] for s in steps if "fields" in s]
            alias = f"$tag_{tag}" in text
            assert alias or any(tag in fields for fields in labelled), panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_what_is_told_apart_is_named_so(name: str) -> None:
    for panel in data_panels(json.loads(rendered()[name])):
        if panel["type"] != "timeseries":
            continue
        query = panel["targets"][0]["query"]
        tags = re.findall(r'"(\w+)"', query.partition(" GROUP BY ")[2])
        split = [s for s in panel["transformations"] if s["id"] == "partitionByValues"]
        assert [s["options"]["fields"] for s in split] == ([tags] if tags else []), panel["title"]
        for shown in set(re.findall(r' AS "([^"]+)"', query)) - {"run"} if tags else ():
            names = [
                p["value"]
                for o in panel["fieldConfig"]["overrides"]
                for p in o["properties"]
                if (o["matcher"]["options"], p["id"]) == (shown, "displayName")
            ]
            assert len(names) == 1, panel["title"]
            assert all(f"${{__field.labels.{tag}}}" in names[0] for tag in tags), panel["title"]


def test_the_platform_says_what_it_is_empty_without() -> None:
    said = json.loads(rendered()["platform.json"])["panels"][0]
    assert said["type"] == "text"
    assert "deploy/up --profile monitoring" in said["options"]["content"]


@pytest.mark.parametrize("name", BOARDS)
def test_what_a_panel_overrides_is_what_its_queries_show(name: str) -> None:
    board = json.loads(rendered()[name])
    for panel in data_panels(board):
        shown = set(re.findall(r'AS "([^"]+)"', " ".join(t["query"] for t in panel["targets"])))
        shown |= {step["options"].get("alias") for step in panel.get("transformations", ())}
        shown |= {"Time"} | set(re.findall(r'"(\w+_name)"', str(panel["targets"])))
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in shown, panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_chosen_names_are_escaped(name: str) -> None:
    board = json.loads(rendered()[name])
    queries = [*panel_queries(board), *(query for _, query in variable_queries(board))]
    names = {variable["name"]: "3+ (old)" for variable in board["templating"]["list"]}
    for query in queries:
        text = interpolated(query.text, names, start_ms=1, end_ms=2, interval="1s")
        assert "3+" not in text, query.where


@pytest.mark.parametrize("name", BOARDS)
def test_tags_stand_in_the_order_of_the_query(name: str) -> None:
    tables = [
        (panel, target["query"])
        for panel in data_panels(json.loads(rendered()[name]))
        for target in panel["targets"]
        if panel["type"] == "table"
    ]
    for panel, query in tables:
        tags = re.findall(r'"(\w+)"', query.partition(" GROUP BY ")[2])
        if len(tags) > 1:
            step = panel["transformations"][0]
            assert step["id"] == "organize", panel["title"]
            places = step["options"]["indexByName"]
            assert sorted(places, key=places.__getitem__) == ["Time", *tags], panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_lines_stay_lines_whatever_the_interval(name: str) -> None:
    for panel in data_panels(json.loads(rendered()[name])):
        drawn = panel["fieldConfig"]["defaults"].get("custom", {})
        if panel["type"] == "timeseries":
            # nulls that Grafana inserts break each line whose points are farther apart
            assert "insertNulls" not in drawn, panel["title"]
            assert drawn["spanNulls"] >= 60_000, panel["title"]
            for target in panel["targets"]:
                assert target["query"].endswith(" fill(null)"), panel["title"]
        elif "insertNulls" in drawn:
            two_weeks_ms = 14 * 24 * 3_600_000
            assert two_weeks_ms / panel["maxDataPoints"] <= drawn["insertNulls"], panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_only_times_are_shown_as_dates(name: str) -> None:
    for panel in data_panels(json.loads(rendered()[name])):
        # a name with the unit of a date is read as one: "line 1" is January 2001
        assert "date" not in panel["fieldConfig"]["defaults"].get("unit", ""), panel["title"]
        for override in panel["fieldConfig"]["overrides"]:
            dated = [p for p in override["properties"] if "date" in str(p["value"])[:4]]
            assert not dated or override["matcher"]["options"] == "Time", panel["title"]


@pytest.mark.parametrize("name", sorted(rendered()))
def test_rows_repeat_for_variables_and_panels_lie_beside_each_other(name: str) -> None:
    board = json.loads(rendered()[name])
    many = {v["name"] for v in board["templating"]["list"] if v.get("multi")}
    repeated = {panel["repeat"] for panel in board["panels"] if panel.get("repeat")}
    assert repeated <= many
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
