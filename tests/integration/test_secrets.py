"""No secret is in anything that any process writes, at any level, whatever fails."""

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from iiot_platform.core import schema
from iiot_platform.core.clock import now_ms
from iiot_platform.core.paths import Home
from iiot_platform.orchestration.instance import prepare_instance
from tests.servers import influx
from tests.servers.capture_log import write_segments
from tests.servers.dagster import wait_for
from tests.servers.fault_table import ALL
from tests.servers.lines import signal_records
from tests.servers.mosquitto import MosquittoServer, program
from tests.servers.opcua import OpcUaServer
from tests.servers.ports import free_port
from tests.servers.postgres import PostgresServer
from tests.servers.webhook import Receiver

SECRETS = {
    name: f"zQ7-{name}-w0rd"
    for name in ("mqtt", "opcua", "token", "influx", "database", "sink", "hook", "bearer", "hmac")
}
EVERYTHING_IS_LOGGED = '''"""Every process logs everything, whatever it asks for itself."""
import logging
asked = logging.basicConfig
def everything(**options):
    asked(**{**options, "level": logging.DEBUG})
    logging.getLogger().setLevel(logging.DEBUG)
logging.basicConfig = everything
everything()
'''
DAGSTER = """
from dagster import DagsterInstance
from iiot_platform.definitions import defs
with DagsterInstance.get() as instance:
    for name in ("live_line1", "settle", "tidy"):
        defs.resolve_job_def(name).execute_in_process(instance=instance, raise_on_error=False)
"""
DEADLINE_S = 240.0


class Refusing(BaseHTTPRequestHandler):
    """Lets nobody in, and repeats the address that was asked for."""

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"code": "unauthorized", "message": "unauthorized access"}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _refuse  # noqa: N815 - the standard library's names

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def refusing() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


class Site:
    """A folder with everything that an installation writes, and its environment.

    Attributes:
        secrets: what nothing may hold, by name.
    """

    def __init__(
        self, folder: Path, environ: Mapping[str, str], secrets: Mapping[str, str] = SECRETS
    ) -> None:
        self.folder = folder
        self.secrets = secrets
        self.home = Home(folder / "var")
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(EVERYTHING_IS_LOGGED)
        self.environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(Path.cwd())]),
            "IIOT_HOME": str(self.home.root),
            "IIOT_PLANT": str(folder / "plant.yaml"),
            "DAGSTER_HOME": str(self.home.dagster),
            **environ,
        }
        (folder / "out").mkdir()
        self._count = 0

    def start(self, *arguments: object, **more: str) -> "subprocess.Popen[bytes]":
        """A process whose whole output goes to a file."""
        self._count += 1
        with (self.folder / "out" / f"{self._count}.txt").open("wb") as out:
            return subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                env={**self.environ, **more},
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=Path.cwd(),
            )

    def iiot(self, *arguments: str, **more: str) -> int:
        return self.start("-m", "iiot_platform.cli", *arguments, **more).wait(DEADLINE_S)

    def output(self) -> str:
        return "".join(p.read_text(errors="replace") for p in (self.folder / "out").iterdir())

    def leaks(self) -> dict[str, set[str]]:
        """Secrets that are in a file, in any of the forms that they may take."""
        found: dict[str, set[str]] = {}
        for path in self.folder.rglob("*"):
            if not path.is_file() or path.is_relative_to(self.folder / "servers"):
                continue
            body = path.read_bytes()
            for name, secret in self.secrets.items():
                if any(form in body for form in forms(secret)):
                    found.setdefault(name, set()).add(str(path.relative_to(self.folder)))
        return found


def forms(secret: str) -> list[bytes]:
    plain = secret.encode()
    return [
        plain,
        urllib.parse.quote(secret, safe="").encode(),
        base64.b64encode(plain).rstrip(b"="),
        plain.hex().encode(),
    ]


def plant(broker: int, opcua: str, nodes: str = "*/*/*") -> dict[str, object]:
    return {
        "sources": [
            {
                "name": "mqtt",
                "port": broker,
                "username": "buffer",
                "password": "${MQTT_PASSWORD}",
            },
            {
                "name": "plc",
                "kind": "opcua",
                "url": opcua,
                "security": "sign_and_encrypt",
                "username": "operator",
                "password": "${OPCUA_PASSWORD}",
                "nodes": [{"path": nodes}],
            },
        ],
        "lines": [{"name": "line1", "source": "mqtt"}, {"name": "line2", "source": "plc"}],
        "alerts": {
            "rules": {"silent_device": {"threshold": 1, "clear": 0.5}},
            "mqtt": {"source": "mqtt"},
            "webhook": {
                "url": "${HOOK_URL}",
                "token": "${HOOK_TOKEN}",
                "hmac_key": "${HOOK_KEY}",
            },
        },
    }


def environment(refusing: int) -> dict[str, str]:
    return {
        "MQTT_PASSWORD": SECRETS["mqtt"],
        "OPCUA_PASSWORD": SECRETS["opcua"],
        "HOOK_URL": f"http://someone:{SECRETS['hook']}@127.0.0.1:{refusing}/{SECRETS['hook']}",
        "HOOK_TOKEN": f"Bearer {SECRETS['bearer']}",
        "HOOK_KEY": SECRETS["hmac"],
        "INFLUX_URL": f"http://writer:{SECRETS['influx']}@127.0.0.1:{refusing}",
        "INFLUX_TOKEN": SECRETS["token"],
        "IIOT_METRICS_TOKEN": SECRETS["bearer"],
        "IIOT_BUFFER_METRICS": f"127.0.0.1:{free_port()}",
    }


@pytest.mark.timeout(600)
@pytest.mark.faults
def test_nothing_that_is_written_holds_a_secret(tmp_path: Path, refusing: int) -> None:
    servers = tmp_path / "servers"
    opcua = OpcUaServer(servers / "opcua", username="operator", password="other", only=True)  # noqa: S106 - not a secret
    with MosquittoServer(servers / "broker", users={"x": "y"}) as broker, opcua:
        site = Site(tmp_path, environment(refusing))
        site.home.root.mkdir(parents=True)
        (tmp_path / "plant.yaml").write_text(yaml.safe_dump(plant(broker.port, opcua.url)))
        now = now_ms() - 60_000
        write_segments(site.home, "line1", signal_records("line1", range(now, now + 30_000, 500)))
        buffer = site.start(
            "-m", "buffer_service", "--plant", tmp_path / "plant.yaml", "--home", site.home.root
        )
        try:
            prepare_instance(site.home)
            assert site.iiot("validate") == 0
            assert site.iiot("batch") == 0
            assert site.start("-c", DAGSTER).wait(DEADLINE_S) == 0
            assert site.iiot("alerts", "run", "--seconds", "3") == 0
            for command in (["status"], ["metrics"], ["alerts", "list"])[: None if ALL else 1]:
                site.iiot(*command)
            host = f"127.0.0.1:{broker.port}"
            login = f"someone:{SECRETS['mqtt']}"
            for url in (f"mqtt://{login}@{host}", f"mqtts://{login}@{host}"):
                assert site.iiot("mqtt", "browse", url)
            env = ("--password-env", "MQTT_PASSWORD")
            assert site.iiot("mqtt", "browse", f"mqtt://someone@{host}", *env)
            assert site.iiot("opcua", "browse", opcua.url.replace("//", f"//{login}@"))
            sink = f"postgresql://iiot:{SECRETS['sink']}@127.0.0.1:{free_port()}/iiot"
            database = f"postgresql://iiot:{SECRETS['database']}@127.0.0.1:{free_port()}/iiot"
            assert site.iiot("sink", "rebuild", IIOT_PG_SINK_URL=sink)
            urls = (database, database.replace("postgresql", "mysql"), database[13:])
            for url in urls[: None if ALL else 1]:
                assert site.iiot("batch", IIOT_DATABASE_URL=url)
            until_sources_are("disconnected", site, buffer)
        finally:
            buffer.send_signal(signal.SIGTERM)
            assert buffer.wait(DEADLINE_S) == 0
    told = site.output()
    # what was to fail has failed, and at every level
    for said in ("DEBUG", "refused as 'buffer'", "401", "webhook", "seen by others"):
        assert said in told, said
    assert site.leaks() == {}


@pytest.mark.timeout(600)
@pytest.mark.faults
def test_nothing_that_is_written_holds_a_secret_that_was_right(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    servers = tmp_path / "servers"
    (servers / "influx").mkdir(parents=True)
    opcua = OpcUaServer(
        servers / "opcua", username="operator", password=SECRETS["opcua"], only=True
    )
    users = {"buffer": SECRETS["mqtt"]}
    with (
        MosquittoServer(servers / "broker", users=users) as broker,
        influx.server(servers / "influx") as tables,
        Receiver() as receiver,
        opcua,
    ):
        database = postgres.lent_database(SECRETS["sink"], schemas=["iiot_tables"])
        given = {
            **environment(receiver.port),
            "INFLUX_URL": tables.url,
            "INFLUX_TOKEN": tables.token,
            "IIOT_PG_SINK_URL": database.get_secret_value(),
        }
        site = Site(tmp_path, given, {**SECRETS, "token": tables.token})
        site.home.root.mkdir(parents=True)
        there = plant(broker.port, opcua.url, nodes="Plant/*/*/*")
        (tmp_path / "plant.yaml").write_text(yaml.safe_dump(there))
        now = now_ms() - 60_000
        write_segments(site.home, "line1", signal_records("line1", range(now, now + 10_000, 500)))
        buffer = site.start(
            "-m", "buffer_service", "--plant", tmp_path / "plant.yaml", "--home", site.home.root
        )
        browse = ("-m", "iiot_platform.cli", "opcua", "browse", opcua.url)
        secured = ("--security", "sign_and_encrypt", "--username", "operator")
        nodes = site.start(*browse, *secured, "--password-env", "OPCUA_PASSWORD", "--plant")
        processes = [nodes, buffer]
        try:
            assert site.iiot("batch") == 0
            assert site.iiot("sink", "rebuild") == 0
            url = f"mqtt://buffer@127.0.0.1:{broker.port}"
            heard = ("mqtt", "browse", url, "--password-env", "MQTT_PASSWORD")
            assert site.iiot(*heard, "--seconds", "0.5") == 0
            assert nodes.wait(DEADLINE_S) == 0
            until_sources_are("connected", site, buffer)
            processes.append(site.start("-m", "iiot_platform.cli", "alerts", "run"))
            wait_for(lambda: receiver.taken, "an alert by webhook", DEADLINE_S)
            login = ["-u", "buffer", "-P", users["buffer"], "-p", str(broker.port)]
            alert = subprocess.run(
                [program("mosquitto_sub"), *login, "-t", "iiot/alerts/#", "-C", "1", "-W", "120"],
                capture_output=True,
                check=False,
            )
            assert b"silent_device" in alert.stdout
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(DEADLINE_S)
        assert [process.returncode for process in processes] == [0] * len(processes)
        # each secret was what let them in
        assert receiver.taken[0].headers["Authorization"] == given["HOOK_TOKEN"]
        assert receiver.taken[0].path == f"/{SECRETS['hook']}"
        assert tables.query(f'SELECT * FROM "{schema.SIGNALS.measurement}"')
    told = site.output()
    for said in ("DEBUG", "connected, new session", "line1: ", "${OPCUA_PASSWORD}"):
        assert said in told, said
    assert site.leaks() == {}


def until_sources_are(state: str, site: Site, buffer: "subprocess.Popen[bytes]") -> None:
    """Both sources have been turned away, or let in."""

    def are() -> bool:
        assert buffer.poll() is None
        try:
            sources = json.loads((site.home.capture / "status.json").read_text())["sources"]
        except (FileNotFoundError, ValueError):
            return False
        return bool(sources) and all(one["state"] == state for one in sources.values())

    wait_for(are, state, DEADLINE_S)
