import copy
import functools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from iiot_platform.alerts.catalog import RULES
from iiot_platform.alerts.grafana import DATASOURCE_UID, rendered, write
from iiot_platform.alerts.grafana_queries import AlertQuery, alert_queries
from iiot_platform.config.alerts import DEFAULT_RULES, AlertSettings
from iiot_platform.config.plant import Plant
from tests.servers import prometheus
from tools.alerts import FOLDER, outdated
from tools.dashboards import influxql
from tools.dashboards.__main__ import rendered as boards

SCHEMA = json.loads((Path(__file__).parents[2] / "data/grafana_alerting.schema.json").read_text())
SITE = Plant.model_validate(
    {
        "lines": ["press", "packer $1"],
        "timezone": "Europe/Berlin",
        "alerts": {
            "rules": {"late_data": {"enabled": False}},
            "exceptions": [
                {"match": "press", "quarantine_rate": {"threshold": 60}},
                {"match": "press/*/oil_?", "anomaly_ratio": {"threshold": 0.5}},
                {"match": "press/hydraulics", "anomaly_ratio": {"enabled": False}},
            ],
            "maintenance": [
                {"name": "clean", "days": ["sat", "sun"], "from": "22:00", "to": "04:00"},
                {
                    "name": "year",
                    "lines": ["press"],
                    "from": "2026-12-30 18:00",
                    "to": "2027-01-03 06:00",
                },
            ],
        },
    }
)
PLANTS = pytest.mark.parametrize("plant", [None, SITE], ids=["defaults", "site"])


def loaded(plant: Plant | None) -> dict[str, Any]:
    return copy.deepcopy(_loaded(of_site=plant is SITE))


@functools.cache
def _loaded(*, of_site: bool) -> dict[str, Any]:
    found = rendered(SITE if of_site else None)
    return {name: yaml.safe_load(text) for name, text in found.items()}


def rules(plant: Plant | None) -> list[dict[str, Any]]:
    return [rule for group in loaded(plant)["rules.yaml"]["groups"] for rule in group["rules"]]


def named(queries: list[AlertQuery], start: str) -> dict[str, AlertQuery]:
    return {
        query.name.removeprefix(start): query for query in queries if query.name.startswith(start)
    }


def test_the_committed_files_are_those_of_the_defaults(tmp_path: Path) -> None:
    assert outdated() == [], "run: python -m tools.alerts"
    assert outdated(tmp_path) == sorted(rendered())
    write(tmp_path)
    assert outdated(tmp_path) == []
    (tmp_path / "old.yaml").write_text("")
    (tmp_path / "rules.yaml").write_text("")
    assert outdated(tmp_path) == ["old.yaml", "rules.yaml"]
    assert FOLDER.name == "alerting"


@PLANTS
def test_files_have_the_shape_that_grafana_documents(plant: Plant | None) -> None:
    for content in loaded(plant).values():
        jsonschema.validate(content, SCHEMA)


def test_the_schema_finds_what_is_wrong() -> None:
    content = loaded(None)["rules.yaml"]
    rule = content["groups"][0]["rules"][0]
    for name, value in (("for", 20), ("uid", "x" * 41), ("noDataState", "Ok"), ("fro", "1s")):
        kept = dict(rule)
        rule[name] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content, SCHEMA)
        rule.clear()
        rule.update(kept)
    jsonschema.validate(content, SCHEMA)


@PLANTS
def test_names_are_unique_and_refer_to_what_is_there(plant: Plant | None) -> None:
    files = loaded(plant)
    found = rules(plant)
    assert len({rule["uid"] for rule in found}) == len({rule["title"] for rule in found})
    assert len({rule["uid"] for rule in found}) == len(found)
    (policy,) = files["policies.yaml"]["policies"]
    (own,) = policy["routes"]
    muted = set(own.get("mute_time_intervals", []))
    for route in own.get("routes", []):
        muted |= set(route["mute_time_intervals"])
        assert muted >= set(own["mute_time_intervals"])
    assert muted == {one["name"] for one in files["mute-timings.yaml"]["muteTimes"]}
    (contact,) = files["contact-points.yaml"]["contactPoints"]
    assert {policy["receiver"], own["receiver"]} == {contact["name"]}
    assert own["group_by"] == ["line_name"]
    assert own["object_matchers"] == [["source", "=", found[0]["labels"]["source"]]]


def test_rules_use_the_data_source_and_the_dashboards_that_are_provisioned() -> None:
    assert influxql.DATASOURCE_UID == DATASOURCE_UID
    uids = {json.loads(text)["uid"] for text in boards().values()}
    for rule in rules(None):
        board = rule["annotations"]["dashboard"].partition("}}d/")[2].partition("?")[0]
        assert board in uids, rule["title"]


def test_nothing_that_grafana_expands_stands_in_a_rule() -> None:
    for rule in rules(SITE):
        texts = [rule["title"], *rule["annotations"].values(), *rule["labels"].values()]
        assert not any("$" in text for text in texts)
    assert "packer $$1" not in rendered(None)["policies.yaml"]


def test_the_command_of_a_rule_can_be_pasted_whatever_the_names_are(tmp_path: Path) -> None:
    """As Prometheus renders it, whose templates Grafana uses."""
    prometheus.require()
    name = "a b'$(reboot)`"
    word = name.replace("'", "'\\''")
    texts = {rule["annotations"]["explain"] for rule in rules(None)} - {"`iiot status`"}
    alerts, cases = [], []
    for i, text in enumerate(sorted(texts)):
        rendered_text = re.sub(r"\{\{.*?\}\}", lambda _: word, text)
        series = [part for part in shlex.split(rendered_text[1:-1]) if "reboot" in part]
        assert series[0] == name
        assert set(series[1].replace(f"{name}/", "").split("/")) == {name}
        labels = dict.fromkeys(re.findall(r"\.Labels\.(\w+)", text), name)
        alerts.append({"alert": f"A{i}", "expr": f"s{i} > 0", "annotations": {"explain": text}})
        given = ",".join(f'{label}="{name}"' for label in labels)
        expected = {"exp_labels": labels, "exp_annotations": {"explain": rendered_text}}
        cases.append(
            {
                "input_series": [{"series": f"s{i}{{{given}}}", "values": "1x5"}],
                "alert_rule_test": [
                    {"alertname": f"A{i}", "eval_time": "2m", "exp_alerts": [expected]}
                ],
            }
        )
    rules_file, test_file = tmp_path / "rules.yml", tmp_path / "test.yml"
    rules_file.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": alerts}]}))
    test_file.write_text(yaml.safe_dump({"rule_files": [rules_file.name], "tests": cases}))
    prometheus.promtool("test", "rules", test_file)


def test_a_person_is_told_since_when() -> None:
    (receiver,) = loaded(None)["contact-points.yaml"]["contactPoints"][0]["receivers"]
    message = receiver["settings"]["message"]
    firing, _, resolved = message.partition("{{ end }}")
    assert firing.startswith("{{ range .Alerts.Firing }}{{ .Annotations.description }}")
    assert "{{ .StartsAt.UTC.Format " in firing
    assert resolved.startswith("{{ range .Alerts.Resolved }}{{ .Annotations.summary }}")
    assert "{{ .StartsAt.UTC.Format " in resolved
    assert "{{ .EndsAt.UTC.Format " in resolved
    assert message.count("{{ range ") == message.count("{{ end }}") == 2
    assert "$" not in message


def test_rules_that_need_more_than_the_database_are_left_to_others() -> None:
    provisioned = {rule["labels"]["rule"] for rule in rules(None)}
    assert provisioned == {name for name, rule in RULES.items() if rule.replayable}


def test_thresholds_durations_and_hysteresis_are_those_of_the_rule() -> None:
    default = DEFAULT_RULES["anomaly_ratio"]
    rule = next(rule for rule in rules(None) if rule["labels"]["rule"] == "anomaly_ratio")
    (condition,) = rule["data"][2]["model"]["conditions"]
    assert condition == {
        "evaluator": {"type": "gt", "params": [default.threshold]},
        "unloadEvaluator": {"type": "lt", "params": [default.clear]},
    }
    assert (rule["for"], rule["keepFiringFor"]) == ("20s", "60s")
    assert rule["data"][0]["relativeTimeRange"] == {"from": 600, "to": 0}


def test_each_series_falls_to_one_variant() -> None:
    found = named(list(alert_queries(SITE.alerts)), "anomaly_ratio/signal_anomalies/anomaly_ratio")
    assert set(found) == {"", " press/*/oil_?"}
    own, other = found[" press/*/oil_?"], found[""]
    line, machine, name = ('"line_name"', '"machine_name"', '"sensor_name"')
    oil = f"{line} =~ /^press$/ AND {machine} =~ /^.*$/ AND {name} =~ /^oil_.$/"
    no_oil = f"({line} !~ /^press$/ OR {machine} !~ /^.*$/ OR {name} !~ /^oil_.$/)"
    not_off = f"({line} !~ /^press$/ OR {machine} !~ /^hydraulics$/)"
    assert f"WHERE {oil} AND {not_off} AND $timeFilter" in own.text
    assert f"WHERE {no_oil} AND {not_off} AND $timeFilter" in other.text
    assert (own.settings.threshold, own.settings.clear, other.settings.threshold) == (
        0.5,
        0.25,
        0.2,
    )


def test_exceptions_of_series_do_not_concern_rules_of_lines() -> None:
    found = named(list(alert_queries(SITE.alerts)), "quarantine_rate")
    assert set(found) == {"", " press"}
    assert found[" press"].settings.threshold == 60
    assert not named(list(alert_queries(SITE.alerts)), "late_data")


def test_switched_off_there_is_no_rule() -> None:
    assert list(alert_queries(AlertSettings(enabled=False))) == []


def test_mute_timings_are_those_of_the_maintenance() -> None:
    weekly, once = loaded(SITE)["mute-timings.yaml"]["muteTimes"]
    zone = {"location": "Europe/Berlin"}
    night = {"times": [{"start_time": "22:00", "end_time": "24:00"}]}
    morning = {"times": [{"start_time": "00:00", "end_time": "04:00"}]}
    assert weekly["time_intervals"] == [
        {**night, "weekdays": ["saturday", "sunday"], **zone},
        {**morning, "weekdays": ["sunday", "monday"], **zone},
    ]

    def day(span: str, month: str, year: str) -> dict[str, Any]:
        return {"days_of_month": [span], "months": [month], "years": [year], **zone}

    assert once["time_intervals"] == [
        {"times": [{"start_time": "18:00", "end_time": "24:00"}], **day("30", "12", "2026")},
        day("31", "12", "2026"),
        day("1:2", "1", "2027"),
        {"times": [{"start_time": "00:00", "end_time": "06:00"}], **day("3", "1", "2027")},
    ]
    assert [one["name"] for one in (weekly, once)] == ["iiot clean", "iiot year"]
