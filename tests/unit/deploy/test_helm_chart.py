"""The Helm chart: its manifests are sound, and say what the compose file says."""

import copy
import functools
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from iiot_platform.config.plant_file import load_plant
from tests.servers.stack import FOR_GRAFANA, ROOT, compose_file, image, known_variables
from tools import chart, generated

SERVICES: dict[str, Any] = compose_file()["services"]
CASES = sorted(path.stem for path in chart.RENDERED.glob("*.yaml"))
OPERATOR_KINDS = {"ServiceMonitor", "PrometheusRule"}
"""Of Prometheus' operator, whose schemas are its own."""
OPERATOR_JOBS = {"buffer": "iiot-buffer", "exporter": "iiot-platform"}
PROXY_SECRETS = {"ui_users", "ui_cert", "ui_key"}

each_case = pytest.mark.parametrize("case", CASES)
Manifest = dict[str, Any]


@functools.cache
def read(case: str) -> list[Manifest]:
    text = (chart.RENDERED / f"{case}.yaml").read_text(encoding="utf-8")
    return [one for one in yaml.load_all(text, yaml.CSafeLoader) if one]


def manifests(case: str, *kinds: str) -> list[Manifest]:
    found = copy.deepcopy(read(case))
    return [one for one in found if not kinds or one["kind"] in kinds]


def given(case: str) -> dict[str, Any]:
    path = chart.CHART / "ci" / f"{case}-values.yaml"
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


def workloads(case: str) -> list[Manifest]:
    return manifests(case, "StatefulSet", "Deployment")


def pod(workload: Manifest) -> Manifest:
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def containers(case: str) -> Iterator[tuple[Manifest, Manifest]]:
    """Each container with its pod."""
    for workload in workloads(case):
        spec = pod(workload)
        for one in (*spec.get("initContainers", []), *spec["containers"]):
            yield spec, one


def ours(case: str) -> Iterator[tuple[str, Manifest]]:
    """Name of the service in the compose file, and the container."""
    for _, one in containers(case):
        if one["name"] != "proxy":
            service = one["name"] if one["name"] in SERVICES else f"dagster-{one['name']}"
            yield service, one


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


def selected(case: str, selector: Mapping[str, str]) -> list[Manifest]:
    return [
        one
        for one in workloads(case)
        if matches(selector, one["spec"]["template"]["metadata"]["labels"])
    ]


def test_each_case_is_checked_in() -> None:
    assert {f"{case}-values.yaml" for case in CASES} == {path.name for path in chart.cases()}


def test_copies_in_the_chart_are_those_of_today() -> None:
    assert generated.outdated(chart.CHART / "files", "*", chart.files()) == []


def test_the_version_is_the_platforms() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    about = yaml.safe_load((chart.CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (about["version"], about["appVersion"]) == (project["version"], project["version"])


@each_case
@pytest.mark.parametrize("version", [chart.KUBERNETES, kubernetes_validate.latest_version()])
def test_kubernetes_knows_every_field(case: str, version: str) -> None:
    for one in manifests(case):
        if one["kind"] not in OPERATOR_KINDS:
            kubernetes_validate.validate(one, version, strict=True)


@each_case
def test_names_are_given_once(case: str) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in manifests(case)]
    assert len(set(names)) == len(names)


@each_case
def test_images_are_pinned(case: str) -> None:
    for _, one in containers(case):
        assert re.search(r":v?\d+\.\d+\.\d+|@sha256:[0-9a-f]{64}$", one["image"]), one["image"]
    values = yaml.safe_load((chart.CHART / "values.yaml").read_text(encoding="utf-8"))
    assert values["proxyImage"] == SERVICES["proxy"]["image"]


@each_case
def test_every_service_of_ours_runs(case: str) -> None:
    names = {name for name, one in SERVICES.items() if one["image"].startswith("iiot-platform")}
    assert {name for name, _ in ours(case)} == names - FOR_GRAFANA


@each_case
def test_commands_are_those_of_compose(case: str) -> None:
    for service, one in ours(case):
        assert "command" not in one  # the image's entry point
        # within a pod every address is the default one
        said = [word for word in SERVICES[service]["command"] if ":" not in word]
        options = {"--listen", "--code-server", "--webserver"}
        assert one["args"] == [word for word in said if word not in options], service


@each_case
def test_probes_are_those_of_compose(case: str) -> None:
    for service, one in ours(case):
        _, *words = SERVICES[service]["healthcheck"]["test"]
        wanted = [re.sub(r"//[a-z-]+:", "//127.0.0.1:", word) for word in words]
        assert one["startupProbe"]["exec"]["command"] == wanted, service
        patience_s = one["startupProbe"]["failureThreshold"] * one["startupProbe"]["periodSeconds"]
        # a damaged manifest is made anew from the whole log before anything else
        assert patience_s >= (86_400 if service == "buffer" else 300)
        alive = one.get("livenessProbe")
        # the pacemaker's health is that of the web server
        assert (alive is None) == (service == "dagster-pacemaker")
        assert alive is None or alive["exec"]["command"] == wanted
        ready = one["readinessProbe"]["exec"]["command"]
        assert ready == [word.replace("9470/healthz", "9470/readyz") for word in wanted]


@each_case
def test_ports_are_those_that_a_process_listens_on(case: str) -> None:
    for service, one in ours(case):
        listened = [
            int(row["value"].rpartition(":")[2])
            for row in one["env"]
            if row["name"] in {"IIOT_BUFFER_METRICS", "IIOT_METRICS"}
        ]
        assert [port["containerPort"] for port in one.get("ports", [])] == listened, service
    text = (chart.CHART / "files" / "nginx.conf").read_text(encoding="utf-8")
    for _, one in containers(case):
        if one["name"] == "proxy":
            assert one["command"][2] == "/etc/nginx/iiot/nginx.conf"
            assert f"listen {one['ports'][0]['containerPort']} ssl;" in text
            assert set(re.findall(r"/run/secrets/(\w+)", text)) == PROXY_SECRETS


@each_case
def test_the_environment_is_that_of_compose(case: str) -> None:
    for service, one in ours(case):
        environ = {row["name"]: row["value"] for row in one["env"]}
        assert environ.keys() <= known_variables()
        assert environ.keys() <= SERVICES[service]["environment"].keys()
        for name in ("IIOT_HOME", "IIOT_PLANT"):
            assert environ[name] == image()["environ"][name]
        for name, value in environ.items():
            assert not re.search(r"PASSWORD|TOKEN|URL_FILE", name) or value.startswith("/run/")


@each_case
def test_memory_is_bounded_as_in_compose(case: str) -> None:
    for service, one in ours(case):
        said = one["resources"]["limits"]["memory"]
        assert said.lower().removesuffix("i") == SERVICES[service]["mem_limit"], service
        assert one["resources"]["requests"].keys() == {"cpu", "memory"}


@each_case
def test_containers_may_do_little(case: str) -> None:
    for spec, one in containers(case):
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not any(spec.get(f"host{what}") for what in ("Network", "PID", "IPC"))
        of_pod, own = spec["securityContext"], one["securityContext"]
        assert of_pod["runAsNonRoot"] is True
        assert own.get("runAsUser", of_pod["runAsUser"]) > 0
        assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        user = f"{of_pod['runAsUser']}:{of_pod['runAsGroup']}"
        assert user == SERVICES["buffer"]["user"]


@each_case
def test_volumes_exist_and_are_used(case: str) -> None:
    for workload in workloads(case):
        spec = pod(workload)
        claims = workload["spec"].get("volumeClaimTemplates", [])
        there = [one["name"] for one in spec["volumes"]] + [c["metadata"]["name"] for c in claims]
        both = (*spec.get("initContainers", []), *spec["containers"])
        mounted = {mount["name"] for one in both for mount in one["volumeMounts"]}
        assert sorted(there) == sorted(mounted)
        for one in both:
            paths = [mount["mountPath"] for mount in one["volumeMounts"]]
            assert len(set(paths)) == len(paths)


@each_case
def test_what_volumes_name_exists(case: str) -> None:
    made = {one["metadata"]["name"]: one["data"] for one in manifests(case, "ConfigMap")}
    claims = {
        f"{claim['metadata']['name']}-{one['metadata']['name']}-0"
        for one in manifests(case, "StatefulSet")
        for claim in one["spec"].get("volumeClaimTemplates", [])
    }
    text = yaml.safe_dump(given(case))
    for workload in workloads(case):
        for volume in pod(workload)["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
            elif "configMap" in volume:
                name = volume["configMap"]["name"]
                assert name in made or f"plantConfigMap: {name}\n" in text
            elif "secret" in volume:
                assert f"secret: {volume['secret']['secretName']}\n" in text
            elif "projected" in volume:
                for source in volume["projected"]["sources"]:
                    name = source.get("secret", {}).get("name")
                    assert name is None or re.search(rf"[sS]ecret: {name}\n", text)
            else:
                assert volume["emptyDir"]["sizeLimit"]
    assert manifests(case, "Secret") == []


@each_case
def test_files_in_run_secrets_are_mounted(case: str) -> None:
    for workload in workloads(case):
        spec = pod(workload)
        volume = next(one for one in spec["volumes"] if one["name"] == "secrets")
        items = {
            item["path"]
            for source in volume["projected"]["sources"]
            for item in source.get("secret", {}).get("items", [])
        }
        used = {
            found
            for one in (*spec.get("initContainers", []), *spec["containers"])
            for row in one.get("env", [])
            for found in re.findall(r"/run/secrets/(\w+)", row["value"])
        }
        assert used == items
        # the database is no business of who captures
        component = workload["metadata"]["labels"]["app.kubernetes.io/component"]
        assert component != "buffer" or items == set()


@each_case
def test_what_works_on_a_log_is_on_its_node(case: str) -> None:
    for workload in workloads(case):
        claims = [v for v in pod(workload)["volumes"] if "persistentVolumeClaim" in v]
        if not claims:
            continue
        (term,) = pod(workload)["affinity"]["podAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        (there,) = selected(case, term["labelSelector"]["matchLabels"])
        name = there["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
        assert claims[0]["persistentVolumeClaim"]["claimName"] == (
            f"{name}-{there['metadata']['name']}-0"
        )


@each_case
def test_a_log_has_one_writer(case: str) -> None:
    for workload in workloads(case):
        assert workload["spec"]["replicas"] == 1
        rolling = workload["kind"] == "Deployment"
        assert not rolling or workload["spec"]["strategy"] == {"type": "Recreate"}
        assert matches(
            workload["spec"]["selector"]["matchLabels"],
            workload["spec"]["template"]["metadata"]["labels"],
        )
        assert len(selected(case, workload["spec"]["selector"]["matchLabels"])) == 1


@each_case
def test_services_lead_to_ports(case: str) -> None:
    for service in manifests(case, "Service"):
        (workload,) = selected(case, service["spec"]["selector"])
        ports = {p["name"] for one in pod(workload)["containers"] for p in one.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"].get("ports", [])} <= ports
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    services = {one["metadata"]["name"]: one for one in manifests(case, "Service")}
    for workload in manifests(case, "StatefulSet"):
        assert workload["spec"]["serviceName"] in services
    for ingress in manifests(case, "Ingress"):
        (rule,) = ingress["spec"]["rules"]
        backend = rule["http"]["paths"][0]["backend"]["service"]
        ports = {port["name"] for port in services[backend["name"]]["spec"]["ports"]}
        assert backend["port"]["name"] in ports


@each_case
def test_the_dagster_ui_is_behind_the_proxy_alone(case: str) -> None:
    for _, one in ours(case):
        assert "--listen" not in one["args"]
        assert all(port["name"] == "metrics" for port in one.get("ports", []))


@each_case
def test_every_pod_has_a_network_policy(case: str) -> None:
    policies = manifests(case, "NetworkPolicy")
    for policy in policies:
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert len(selected(case, policy["spec"]["podSelector"]["matchLabels"])) == 1
        for rule in policy["spec"]["ingress"]:
            assert rule["from"]
            assert rule["ports"]
    assert len(policies) == len(workloads(case))


@each_case
def test_a_buffer_is_not_evicted_unasked(case: str) -> None:
    budgets = manifests(case, "PodDisruptionBudget")
    for budget in budgets:
        (workload,) = selected(case, budget["spec"]["selector"]["matchLabels"])
        assert workload["metadata"]["labels"]["app.kubernetes.io/component"] == "buffer"
    assert len(budgets) == len(given(case)["buffers"])


def test_monitors_find_services_under_the_rules_names() -> None:
    (rule,) = manifests("full", "PrometheusRule")
    shipped = yaml.safe_load((chart.CHART / "files" / "rules.yml").read_text(encoding="utf-8"))
    assert rule["spec"] == shipped
    jobs = set(re.findall(r'job="([^"]+)"', json.dumps(shipped).replace('\\"', '"')))
    found = set()
    for monitor in manifests("full", "ServiceMonitor"):
        (service,) = (
            one
            for one in manifests("full", "Service")
            if matches(monitor["spec"]["selector"]["matchLabels"], one["metadata"]["labels"])
        )
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        (renamed,) = endpoint["relabelings"]
        component = monitor["metadata"]["labels"]["app.kubernetes.io/component"]
        assert renamed == {"targetLabel": "job", "replacement": OPERATOR_JOBS[component]}
        found.add(renamed["replacement"])
    assert jobs <= found


@each_case
def test_the_plant_is_one(case: str, tmp_path: Path) -> None:
    for one in manifests(case, "ConfigMap"):
        if "plant.yaml" in one["data"]:
            path = tmp_path / "plant.yaml"
            text = one["data"]["plant.yaml"]
            for name in re.findall(r"/run/secrets/(\w+)", text):
                (tmp_path / name).write_text("secret", encoding="utf-8")
            path.write_text(text.replace("/run/secrets", str(tmp_path)), encoding="utf-8")
            assert load_plant(path, {}).line_names == ("line1",)


def values() -> dict[str, Any]:
    text = (chart.CHART / "values.yaml").read_text(encoding="utf-8")
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def test_the_schema_knows_every_value_and_refuses_others() -> None:
    schema = json.loads((chart.CHART / "values.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    check = jsonschema.Draft7Validator(schema)
    assert list(check.iter_errors(values())) == []
    assert values().keys() | {"global"} == schema["properties"].keys()
    entry = schema["definitions"]["entry"]["properties"]
    assert values()["bufferDefaults"].keys() == entry.keys()
    for case in CASES:
        assert list(check.iter_errors(values() | given(case))) == []
    for wrong in (
        {"buffer": {}},
        {"buffers": {}},
        {"buffers": {"Main": {}}},
        {"buffers": {"main": {"databse": {}}}},
        {"buffers": {"main": {"ui": {"ingress": {"enabled": True, "host": ""}}}}},
        {"image": {"repository": "x", "tag": "latest"}},
        {"resources": {"pool": {"limits": {"cpu": "1"}}}},
    ):
        assert list(check.iter_errors(values() | wrong)), wrong


def require_helm() -> None:
    if shutil.which("helm") is None:
        pytest.skip(f"{chart.HOW_TO_GET_HELM}; the checked-in manifests were tested all the same")


def test_checked_in_manifests_are_what_helm_makes() -> None:
    require_helm()
    assert generated.outdated(chart.RENDERED, "*.yaml", chart.rendered()) == []


@each_case
def test_helm_finds_nothing_to_mend(case: str) -> None:
    require_helm()
    path = chart.CHART / "ci" / f"{case}-values.yaml"
    done = subprocess.run(
        ["helm", "lint", "--strict", "--values", path, chart.CHART],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "buffers.main.plant=,"], "has no plant file"),
        (["--set", "buffers.main.ui.ingress.enabled=true"], "host"),
        (
            ["--set", "buffers.main.ui.ingress.enabled=true,buffers.main.ui.ingress.host=a.b"],
            "needs ui.secret",
        ),
        (["--set", "image.tagg=1"], "tagg"),
    ],
)
def test_wrong_values_are_refused(options: list[str], said: str) -> None:
    require_helm()
    done = chart.template(chart.CHART / "ci" / "least-values.yaml", *options)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_line_is_added_by_the_plant_file_alone(tmp_path: Path) -> None:
    require_helm()
    case = chart.CHART / "ci" / "least-values.yaml"
    plant = tmp_path / "plant.yaml"
    plant.write_text(
        "lines: [line1, line2]\nsources: [{name: broker, host: mosquitto.plant}]\n", "utf-8"
    )
    done = chart.template(case, "--set-file", f"buffers.main.plant={plant}")
    before = {(m["kind"], m["metadata"]["name"]): m for m in manifests("least")}
    after = [one for one in yaml.safe_load_all(done.stdout) if one]
    assert len(after) == len(before)
    changed = set()
    for one in after:
        old = before[one["kind"], one["metadata"]["name"]]
        if one != old:
            changed.add(one["metadata"]["name"])
            # those that read the file when they start are started anew
            for manifest in (one, old):
                manifest.pop("data", None)
                manifest["spec"] = manifest.get("spec", {"template": {"metadata": {}}})
                manifest["spec"]["template"]["metadata"].pop("annotations", None)
        assert one == old
    assert changed == {f"iiot-main-{n}" for n in ("plant", "platform", "exporter", "alerts")}


def test_values_for_dagsters_own_chart_name_what_this_one_makes() -> None:
    text = (chart.DEPLOY / "helm" / "dagster-values.yaml").read_text(encoding="utf-8")
    theirs = yaml.safe_load(text)
    (location,) = theirs["dagster-user-deployments"]["deployments"]
    (buffer,) = (one for one in workloads("full") if one["metadata"]["name"] == "iiot-main-buffer")
    (home,) = buffer["spec"]["volumeClaimTemplates"]
    volumes = {volume["name"]: volume for volume in location["volumes"]}
    claim = volumes["home"]["persistentVolumeClaim"]["claimName"]
    assert claim == f"{home['metadata']['name']}-{buffer['metadata']['name']}-0"
    plants = {one["metadata"]["name"] for one in manifests("full", "ConfigMap")}
    assert volumes["plant"]["configMap"]["name"] in plants
    assert volumes.keys() == {mount["name"] for mount in location["volumeMounts"]}

    run = theirs["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    for affinity in (location["affinity"], run["podSpecConfig"]["affinity"]):
        (term,) = affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert selected("full", term["labelSelector"]["matchLabels"]) == [buffer]
    environ = {row["name"]: row["value"] for row in location["env"]}
    assert environ.keys() <= known_variables()
    # a run has those of the location, which would hide any of the launcher
    assert location["includeConfigInLaunchedRuns"] == {"enabled": True}
    assert location["resources"]["limits"].keys() == {"memory"}
    assert "resources" not in run["containerConfig"]
