"""The compose file is sound in itself, and says no more than our programs and files know."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import check_jsonschema
import pytest
import yaml
from click.testing import CliRunner

from iiot_platform.cli.app import COMMANDS
from iiot_platform.config.plant_file import load_plant
from iiot_platform.config.settings import POSTGRESQL, Settings
from tests.servers.stack import DEPLOY, Stack, compose_file, image, known_variables

COMPOSE = compose_file()
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = [name for name, one in SERVICES.items() if one["image"].startswith("iiot-platform")]
ONE_SHOT = {"influxdb-init", "grafana-files"}
WRITABLE = {"grafana"}
"""Whose image wants to write into itself."""
MADE = {"./plant"}
"""What `deploy/up` makes, beside secrets/."""
GIVEN = {"pg_sink_url"}
"""Secrets that somebody brings, or nobody."""
OWN_SETTINGS = {"NUMBA_CACHE_DIR", "PYTHONUNBUFFERED", "PATH"}

each_service = pytest.mark.parametrize("name", SERVICES)


def test_it_is_what_the_specification_allows() -> None:
    arguments = ["--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yml")]
    done = CliRunner().invoke(check_jsonschema.main, arguments)
    assert done.exit_code == 0, done.output


@each_service
def test_images_are_pinned(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].rpartition(":")
    assert re.match(r"v?\d+\.\d+", tag), SERVICES[name]["image"]


def test_the_base_of_our_image_is_pinned() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    base = re.search(r"^ARG BASE=\S+:(\S+)$", text, re.MULTILINE)
    assert base is not None
    assert re.match(r"\d+\.\d+\.\d+-", base[1])
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"]


@each_service
def test_ports_are_on_loopback_unless_somebody_says_otherwise(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert str(port).startswith("127.0.0.1:"), port


def test_the_dagster_ui_is_behind_the_proxy_alone() -> None:
    assert "ports" not in SERVICES["dagster-webserver"]
    text = (DEPLOY / "nginx" / "iiot.conf").read_text(encoding="utf-8")
    assert "auth_basic_user_file /run/secrets/ui_users;" in text
    assert "http://dagster-webserver:3000" in text


@each_service
def test_containers_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert service["read_only"] is (name not in WRITABLE)
    assert service["mem_limit"]
    assert service["pids_limit"] > 0
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    if name not in ONE_SHOT | {"dozzle"}:
        assert not str(service["user"]).startswith(("0", "root"))


@each_service
def test_two_cores_are_enough(name: str) -> None:
    # Docker starts no container that is given more than the machine has
    assert SERVICES[name].get("cpus", 0) <= 2


def test_what_can_be_done_again_makes_room_for_what_can_not() -> None:
    first = sorted(SERVICES, key=lambda name: -SERVICES[name].get("oom_score_adj", 0))
    assert first[0] == "dagster-pool"
    kept = {"mosquitto", "buffer", "postgres", "influxdb"}
    assert not kept & {name for name in SERVICES if "oom_score_adj" in SERVICES[name]}
    # each writes something when it ends; Docker's ten seconds are short for a slow disk
    for name, service in SERVICES.items():
        named = [
            v for v in service.get("volumes", []) if v[0] not in "./" and not v.endswith(":ro")
        ]
        assert not named or "stop_grace_period" in service or name in ONE_SHOT, name


def test_settings_of_the_compose_file_are_documented() -> None:
    text = (DEPLOY / "compose.yml").read_text(encoding="utf-8")
    told = (DEPLOY.parent / "docs" / "how-to" / "deploy-with-containers.md").read_text("utf-8")
    asked = set(re.findall(r"\$\{([A-Z_]+)", text))
    assert {name for name in asked if f"`{name}`" not in told} == set()


@each_service
def test_health_is_looked_at(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    if name in ONE_SHOT:
        assert check == {"disable": True}
        return
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()


@each_service
def test_dependencies_exist_and_can_come_true(name: str) -> None:
    for other, condition in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        one_shot = condition["condition"] == "service_completed_successfully"
        assert one_shot == (other in ONE_SHOT)
        assert set(SERVICES[other].get("profiles", [])) <= set(SERVICES[name].get("profiles", []))


def test_what_is_named_exists_and_what_exists_is_named() -> None:
    secrets = {one for service in SERVICES.values() for one in service.get("secrets", [])}
    assert secrets == COMPOSE["secrets"].keys()
    networks = {one for service in SERVICES.values() for one in service.get("networks", [])}
    assert networks == COMPOSE["networks"].keys()
    sources = {
        volume.split(":")[0] for one in SERVICES.values() for volume in one.get("volumes", [])
    }
    assert {s for s in sources if s[0] not in "./"} == COMPOSE["volumes"].keys()
    for source in {s for s in sources if s.startswith(".")} - MADE:
        assert (DEPLOY / source).exists(), source


def test_every_path_in_run_secrets_is_a_secret_of_its_service() -> None:
    for name, service in SERVICES.items():
        text = yaml.safe_dump({**service, "secrets": []})
        used = set(re.findall(r"/run/secrets/(\w+)", text))
        assert used <= set(service.get("secrets", [])), name
    for name, file in (("mosquitto", "mosquitto/mosquitto.conf"), ("proxy", "nginx/iiot.conf")):
        used = set(re.findall(r"/run/secrets/(\w+)", (DEPLOY / file).read_text(encoding="utf-8")))
        assert used <= set(SERVICES[name]["secrets"]), file
    plant = (DEPLOY / "plant.template.yaml").read_text(encoding="utf-8")
    used = set(re.findall(r"/run/secrets/(\w+)", plant))
    for name in OURS:
        mounted = any(str(v).startswith("./plant") for v in SERVICES[name]["volumes"])
        assert not mounted or used <= set(SERVICES[name]["secrets"]), name


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_given_what_they_know(name: str) -> None:
    service = SERVICES[name]
    assert service.get("environment", {}).keys() <= known_variables() | OWN_SETTINGS
    assert image()["environ"].keys() <= known_variables() | OWN_SETTINGS
    assert service["command"][0] in COMMANDS
    if name in ONE_SHOT:
        return
    probe = service["healthcheck"]["test"]
    assert probe[:4] == ["CMD", "python", "-m", "iiot_platform.probe"]


def test_no_secret_stands_in_an_environment() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET|KEY", variable) and value:
                assert variable.endswith("FILE"), f"{name}: {variable}"


def test_up_makes_every_secret_and_a_valid_plant_and_replaces_nothing(tmp_path: Path) -> None:
    def up() -> None:
        subprocess.run(
            [DEPLOY / "up", "--check"],
            check=True,
            capture_output=True,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin", "FOLDER": str(tmp_path)},
        )

    up()
    secrets = tmp_path / "secrets"
    assert secrets.stat().st_mode & 0o777 == 0o700
    for name, secret in COMPOSE["secrets"].items():
        assert name in GIVEN or (tmp_path / secret["file"]).stat().st_size > 0, secret
    made = {path.name: path.read_bytes() for path in secrets.iterdir()}
    up()
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == made
    assert not any(b"$" in text for name, text in made.items() if name.endswith(("word", "token")))
    plant = tmp_path / "plant" / "plant.yaml"
    plant.write_text(
        plant.read_text(encoding="utf-8").replace("/run/secrets", str(secrets)), encoding="utf-8"
    )
    loaded = load_plant(plant, {})
    assert loaded.alert_broker is not None
    assert loaded.alert_broker.username == "alerts"
    assert [line.name for line in loaded.lines_of("broker")] == ["line1"]


def test_links_lead_where_a_browser_finds_the_service() -> None:
    dagster, grafana = (SERVICES[name]["ports"][0].split(":")[-2] for name in ("proxy", "grafana"))
    found = {"DAGSTER_UI_URL": set[str](), "GRAFANA_URL": set[str]()}
    for service in SERVICES.values():
        for name in found.keys() & service.get("environment", {}).keys():
            found[name].add(service["environment"][name])
    assert found == {
        "DAGSTER_UI_URL": {f"https://127.0.0.1:{dagster}"},
        "GRAFANA_URL": {f"http://127.0.0.1:{grafana}"},
    }
    assert {SERVICES["grafana"]["environment"]["GF_SERVER_ROOT_URL"]} == found["GRAFANA_URL"]
    assert "DAGSTER_UI_URL" in SERVICES["grafana-files"]["environment"]
    elsewhere = compose_file({"GRAFANA_URL": "https://g", "DAGSTER_UI_URL": "https://d"})[
        "services"
    ]
    assert elsewhere["grafana"]["environment"]["GF_SERVER_ROOT_URL"] == "https://g"
    assert elsewhere["grafana-files"]["environment"]["DAGSTER_UI_URL"] == "https://d"


def test_up_starts_grafana_behind_the_files_that_it_reads_once(tmp_path: Path) -> None:
    assert "grafana-files" in SERVICES["grafana"]["depends_on"]
    kept = shutil.ignore_patterns("secrets", "plant")
    shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=kept)
    calls = tmp_path / "calls"
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    # at a first start there is nothing to stop
    docker.write_text(
        f"""#!/bin/sh
echo "$*" >> {calls}
case "$*" in "compose version --short") echo 2.40.0 ;; *" stop grafana") exit 1 ;; esac
""",
        encoding="utf-8",
    )
    docker.chmod(0o755)
    done = subprocess.run(
        [tmp_path / "deploy" / "up"],
        env={"PATH": f"{docker.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    words = [call.split() for call in calls.read_text("utf-8").splitlines()]
    stopped = next(i for i, call in enumerate(words) if call[-2:] == ["stop", "grafana"])
    (started,) = (i for i, call in enumerate(words) if "up" in call)
    assert stopped < started


def test_tables_go_to_postgresql_where_somebody_gives_its_address(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    given = folder / "pg_sink_url"
    given.write_text("postgresql://iiot:secret@db.plant/plant\n", encoding="utf-8")
    given.chmod(0o600)
    stack = Stack(tmp_path, variables={"PG_SINK_URL_FILE": "./secrets/pg_sink_url"})
    stack.prepare()
    # the user of the image reads it
    assert given.stat().st_mode & 0o777 == 0o444
    without = Stack(tmp_path)
    for name in OURS:
        secrets = set(SERVICES[name]["secrets"])
        assert ("pg_sink_url" in secrets) == ("database_url" in secrets), name
        for one, sinks in ((without, set()), (stack, {POSTGRESQL})):
            environ = {
                variable: value
                for variable, value in one.environ(name).items()
                if not variable.startswith("INFLUX_")
            }
            found = Settings.from_environ(environ).sinks
            assert found.keys() == (sinks if "database_url" in secrets else set()), name


def test_a_broken_certificate_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "mqtt.pem").write_text("no certificate", encoding="utf-8")
    (folder / "mqtt.key").write_text("no key", encoding="utf-8")
    done = subprocess.run(
        [DEPLOY / "up", "--check"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "FOLDER": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "mqtt.pem is not signed by" in done.stderr
