"""The shipped Prometheus configuration and its alerts."""

import re
from pathlib import Path
from typing import Any

import yaml

from iiot_platform.config.endpoint import BUFFER_PORT, PLATFORM_PORT
from iiot_platform.metrics import buffer, platform
from tests.servers import prometheus

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "prometheus"
CASES = Path(__file__).resolve().parents[2] / "data" / "prometheus" / "rules_test.yml"
JOBS = {"iiot-buffer": BUFFER_PORT, "iiot-platform": PLATFORM_PORT}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_rules_ask_for_declared_metrics_and_scraped_jobs() -> None:
    declared = {metric.name for metric in (*buffer.METRICS, *platform.METRICS)}
    for rule in rules():
        assert set(re.findall(r"\biiot_\w+", rule["expr"])) <= declared, rule["alert"]
        assert set(re.findall(r'job="([^"]+)"', rule["expr"])) <= set(JOBS), rule["alert"]


def test_the_configuration_scrapes_the_default_addresses() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    found = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]
    }
    assert found == {name: [f"127.0.0.1:{port}"] for name, port in JOBS.items()}


def test_promtool_accepts_configuration_and_rules() -> None:
    prometheus.require()
    prometheus.promtool("check", "config", FOLDER / "prometheus.yml")
    prometheus.promtool("check", "rules", FOLDER / "rules.yml")


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    prometheus.require()
    prometheus.promtool("test", "rules", CASES)
    tested = set(re.findall(r"alertname: (\w+)", CASES.read_text(encoding="utf-8")))
    assert tested == {rule["alert"] for rule in rules()}
