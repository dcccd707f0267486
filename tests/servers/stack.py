"""The containers of `deploy/compose.yml` as processes of this machine.

Commands, environment, order and health checks are read from the compose file and translated: names
of hosts become 127.0.0.1 with free ports, paths in a container become folders of the test. Ours and
the broker run; databases are the test's own.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.servers.mosquitto import program
from tests.servers.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
FOR_GRAFANA = {"grafana-files"}
"""Services of our image that are there where Grafana is."""
_VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z_]+)(?::([-+])([^}]*))?\}")
_HOST_AND_PORT = re.compile(r"\b([a-z][a-z-]*|127\.0\.0\.1|0\.0\.0\.0):(\d{4,5})\b")
_PLAIN_PORT = re.compile(r"-h 127\.0\.0\.1 -p (\d+)")


def interpolated(text: str, environ: Mapping[str, str]) -> str:
    """A text as compose reads it, `$$` left for the container.

    Where NAME is empty, `${NAME:-other}` is the other one, where it is not, `${NAME:+other}`.
    """

    def value(found: re.Match[str]) -> str:
        name, sign, other = found.groups("")
        given = environ.get(name, "")
        return other if sign and bool(given) == (sign == "+") else given

    return _VARIABLE.sub(value, text)


def compose_file(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What compose reads, with the variables of a `deploy/.env`."""

    def filled(node: object) -> object:
        # after the parser, as compose does: an empty value is an empty text
        if isinstance(node, dict):
            return {key: filled(value) for key, value in node.items()}
        if isinstance(node, list):
            return [filled(one) for one in node]
        return interpolated(node, environ or {}) if isinstance(node, str) else node

    text = (DEPLOY / "compose.yml").read_text(encoding="utf-8")
    read = filled(yaml.safe_load(text))
    assert isinstance(read, dict)
    return read


def image() -> dict[str, Any]:
    """What the Dockerfile's last stage says: ENTRYPOINT, CMD, ENV."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") :]
    environ = dict(
        part.partition("=")[::2]
        for row in re.findall(r"^ENV (.*)$", last, re.MULTILINE)
        for part in row.split()
    )
    entry, command = (
        json.loads(re.findall(rf"^{name} (\[.*\])$", last, re.MULTILINE)[-1])
        for name in ("ENTRYPOINT", "CMD")
    )
    return {"environ": environ, "entrypoint": entry, "command": command}


def known_variables() -> set[str]:
    """Every name that our programs ask the environment for, with the file variant of secrets."""
    text = (ROOT / "iiot_platform" / "config" / "settings.py").read_text(encoding="utf-8")
    names = set(re.findall(r'"((?:IIOT|INFLUX|DAGSTER|GRAFANA)_[A-Z_]+)"', text))
    return names | {f"{name}_FILE" for name in names}


@dataclass
class Stack:
    """Processes of one project.

    Attributes:
        folder: what the containers' volumes and secrets become.
        given: services that are there already, by port in the container: `{"postgres": {5432: …}}`.
        variables: what stands in `deploy/.env`.
    """

    folder: Path
    given: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    services: dict[str, Any] = field(init=False)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _ports: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._file = compose_file(self.variables)
        self.services = self._file["services"]

    @property
    def ours(self) -> list[str]:
        """Services of our image, each behind those that it depends on."""
        ordered: list[str] = []

        def add(name: str) -> None:
            for other in self.services[name].get("depends_on", {}):
                add(other)
            if name not in ordered:
                ordered.append(name)

        for name in self.services:
            add(name)
        return [n for n in ordered if self.services[n]["image"].startswith("iiot-platform")]

    def prepare(self, *options: str) -> None:
        """Secrets, certificates and plant file, as `deploy/up` makes them."""
        subprocess.run(
            [DEPLOY / "up", "--check", *options],
            check=True,
            env={**os.environ, "FOLDER": str(self.folder)},
            capture_output=True,
        )
        for name in ("home", "mosquitto"):
            (self.folder / name).mkdir(exist_ok=True)

    def port(self, service: str, inside: int) -> int:
        """Where a port of a container is here."""
        there = self.given.get(service, {}).get(inside)
        return self._ports.setdefault((service, inside), there or free_port())

    def path(self, service: str, inside: str) -> Path:
        """Where a path in a container is here."""
        secret = re.fullmatch(r"/run/secrets/(\w+)", inside)
        if secret:
            assert secret[1] in self.services[service]["secrets"], (service, inside)
            source = self._file["secrets"][secret[1]]["file"]
            return self.folder / Path(source).relative_to(".")
        for volume in self.services[service]["volumes"]:
            source, target = volume.split(":")[:2]
            if inside == target or inside.startswith(f"{target}/"):
                rest = inside.removeprefix(target).lstrip("/")
                if source == "./plant" or not source.startswith("."):
                    return self.folder / Path(source).name / rest
                return DEPLOY / source / rest
        raise AssertionError(f"{service}: nothing is mounted at {inside}")

    def translated(self, service: str, text: str) -> str:
        """A word of a command, or a value of the environment."""

        def address(found: re.Match[str]) -> str:
            host, port = found[1], int(found[2])
            name = service if host in {"127.0.0.1", "0.0.0.0"} else host  # noqa: S104 - compared
            assert name in self.services, f"{service}: '{found[0]}' names no service"
            return f"127.0.0.1:{self.port(name, port)}"

        text = _HOST_AND_PORT.sub(address, text.replace("$$", "$"))
        text = _PLAIN_PORT.sub(
            lambda found: f"-h 127.0.0.1 -p {self.port(service, int(found[1]))}", text
        )
        return re.sub(
            r"/(?:run/secrets|run/influx|var/lib/(?:iiot|grafana-files)|etc/iiot|usr/share/iiot|"
            r"mosquitto/(?:config|data))[\w./]*",
            lambda found: str(self.path(service, found[0])),
            text,
        )

    def environ(self, service: str) -> dict[str, str]:
        """The whole environment of a service's process."""
        inside = dict(self.services[service].get("environment", {}))
        if service in self.ours:
            inside = {**image()["environ"], **inside}
        inside.pop("PATH", None)
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            **{name: self.translated(service, str(value)) for name, value in inside.items()},
        }

    def command(self, service: str) -> list[str]:
        """The command line of one of our services."""
        said = image()
        assert said["entrypoint"] == ["iiot"]
        words = self.services[service].get("command", said["command"])
        return [sys.executable, "-m", "iiot_platform.cli", *self._words(service, words)]

    def _words(self, service: str, words: list[str]) -> list[str]:
        return [self.translated(service, word) for word in words]

    def start(self, service: str) -> None:
        self._run(service, self.command(service))

    def start_broker(self) -> None:
        """Mosquitto with the shipped configuration; only its paths and ports are of this test."""
        service = "mosquitto"
        shipped = self.path(service, "/mosquitto/config/mosquitto.conf")
        text = re.sub(
            r"^listener (\d+)$",
            lambda found: f"listener {self.port(service, int(found[1]))} 127.0.0.1",
            shipped.read_text(encoding="utf-8"),
            flags=re.MULTILINE,
        )
        rights = self.folder / "acl"
        rights.write_text(
            self.path(service, "/mosquitto/config/acl").read_text(encoding="utf-8"), "utf-8"
        )
        rights.chmod(0o600)
        text = text.replace("/mosquitto/config/acl", str(rights))
        config = self.folder / "mosquitto.conf"
        user = "\nuser root\n" if os.getuid() == 0 else "\n"
        config.write_text(self.translated(service, text) + user, encoding="utf-8")
        name, flag, _ = self.services[service]["command"]
        self._run(service, [program(name), flag, str(config)])

    def _run(self, service: str, command: list[str]) -> None:
        with self.log(service).open("ab") as log:
            self.processes[service] = subprocess.Popen(
                command,
                env=self.environ(service),
                cwd=self.folder / "home",
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self, service: str) -> Path:
        return self.folder / f"{service}.log"

    def unwell(self, service: str) -> str:
        """What the health check of a service complains of, empty where it passes."""
        process = self.processes[service]
        if self.services[service]["restart"] == "no":
            # it is well when it has ended
            if process.poll() is None:
                return "it still runs"
            if process.returncode == 0:
                return ""
        if process.poll() is not None:
            said = self.log(service).read_text(encoding="utf-8", errors="replace")[-3_000:]
            raise AssertionError(f"{service} ended with {process.returncode}: {said}")
        kind, *words = self.services[service]["healthcheck"]["test"]
        words = self._words(service, words)
        if kind == "CMD-SHELL":
            words = ["/bin/sh", "-c", *words]
        else:
            assert (kind, words[0]) == ("CMD", "python")
            words[0] = sys.executable
        done = subprocess.run(
            words,
            env=self.environ(service),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        return "" if done.returncode == 0 else done.stderr or f"exit code {done.returncode}"

    def wait_until_well(self, service: str, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while complaint := self.unwell(service):
            if time.monotonic() > until:
                said = self.log(service).read_text(encoding="utf-8", errors="replace")[-3_000:]
                raise AssertionError(f"{service} is not healthy: {complaint}\n{said}")
            time.sleep(0.3)

    def wants(self, service: str) -> Iterator[str]:
        """The services that must be healthy before a service starts."""
        for name, condition in self.services[service].get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                yield name

    def stop(self, *services: str, timeout_s: float = 60.0) -> None:
        """SIGTERM to each, those that depend on others first, as compose does."""
        for name in sorted(services, key=[*self.ours, "mosquitto"].index, reverse=True):
            process = self.processes.pop(name, None)
            if process is None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise AssertionError(f"{name} does not stop on SIGTERM") from error

    def kill(self) -> None:
        """Ends whatever still runs."""
        for process in self.processes.values():
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            finally:
                process.wait()
        self.processes.clear()
